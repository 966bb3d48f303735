"""The gallery: clean, flow, perturbation, adversarial, as pictures inside the page."""

import base64
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....drawing import (
    arrow_list,
    confidence,
    dimmed,
    full_scale,
    lengthening,
    perturbation,
    radius_255,
)
from ....errors import DataError
from ..contents import AttackRow, Gallery, GalleryImage, GalleryView, ModelReport
from .markup import Html, Node, element
from .numbers import NOTHING, radius
from .subject import Page, Shown

__all__ = ["gallery_section", "shown_attack"]

Array = NDArray[Any]

_HOW = {
    "pixel": "pixels are changed",
    "flow": "pixels are moved",
    "joint": "pixels are moved and changed",
    "rotation": "the image is turned and shifted",
}

_BACKGROUND = 112
"""The longer side of the background of arrows, at most, pixels."""

_SMALL = 64
"""Images up to this size are shown pixel by pixel, two to a row of the page."""


def shown_attack(model: ModelReport) -> str | None:
    """Return the attack whose pictures are shown: the strongest of those that move pixels and
    change them, else the strongest of all; of equals, the first that follows a gradient.
    """
    if model.gallery is None or not model.gallery.images:
        return None
    drawn = model.gallery.images[0].attacks
    rows = [row for row in model.attacks if row.name in drawn]
    joint = [row for row in rows if row.threat == "joint"]
    strongest = min(joint or rows, key=_strength, default=None)
    return None if strongest is None else strongest.name


def _strength(row: AttackRow) -> tuple[float, bool]:
    return row.accuracy.value, row.gradients == 0


def gallery_section(page: Page, one: Shown) -> Html:
    """Return the pictures of a model.

    Raises:
        DataError: the file of the pictures is not what the report says it is.
    """
    gallery, attack = one.model.gallery, shown_attack(one.model)
    if gallery is None or attack is None:
        return element("p", "No pictures were kept.", class_="quiet")
    if Path(gallery.file).name != gallery.file:
        raise DataError(
            f"gallery: expected the name of a file beside the report, got {gallery.file!r}"
        )
    path = None if one.folder is None else one.folder / gallery.file
    if path is None or not path.is_file():
        return element(
            "p", f"The pictures are in {gallery.file}, which was not beside the report.",
            class_="quiet",
        )  # fmt: skip
    arrays = _read(path, gallery, attack, one.model)
    return _drawn(page, one, gallery, attack, arrays)


def _read(path: Path, gallery: Gallery, attack: str, model: ModelReport) -> dict[str, Array]:
    names = {"clean": "clean", **{k: f"{attack}.{k}" for k in ("adversarial", "delta", "flow")}}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {short: file[name] for short, name in names.items() if name in file}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected the pictures of a report: {error}") from None
    channel, *size = model.image_shape
    shapes = {"clean": (channel, *size), "adversarial": (channel, *size),
              "delta": (channel, *size), "flow": (2, *size)}  # fmt: skip
    for short, shape in shapes.items():
        held = arrays[short].shape if short in arrays else None
        if held is None or held[1:] != shape or held[0] < len(gallery.images):
            wanted = (len(gallery.images), *shape)
            raise DataError(f"{path}: {names[short]}: expected the shape {wanted}, got {held}")
    return arrays


def _drawn(
    page: Page, one: Shown, gallery: Gallery, attack: str, arrays: Mapping[str, Array]
) -> Html:
    places = [image.position for image in gallery.images]
    deltas, flows = arrays["delta"][places], arrays["flow"][places].astype(np.float64)
    full, moved = full_scale(list(deltas)), bool(flows.any())
    stretch = lengthening(list(flows)) if moved else None
    row = next(row for row in one.model.attacks if row.name == attack)
    told: list[Node] = ["Under ", element("b", attack), f": {_HOW.get(row.threat, 'attacked')}."]
    if full > 0:
        told.append(f" Perturbation: black \N{MINUS SIGN}{radius_255(full)}, mid-grey none, white "
                    f"+{radius_255(full)}, the same for all.")  # fmt: skip
    if stretch is not None:
        told.append(f" Flow: each arrow points from a pixel to where it reads from, {stretch:g} "
                    "times as long as it is.")  # fmt: skip
    specimens = [_specimen(page, image, attack, arrays, full, stretch) for image in gallery.images]
    small = max(one.model.image_shape[1:]) <= _SMALL
    grid = element("div", specimens, class_="specimens small" if small else "specimens")
    return element("div", element("p", told), grid)


def _specimen(
    page: Page,
    image: GalleryImage,
    attack: str,
    arrays: Mapping[str, Array],
    full: float,
    stretch: float | None,
) -> Html:
    k, view = image.position, image.attacks[attack]
    name = page.class_name(image.label)
    panels = [_panel("clean", _image(_levels(arrays["clean"][k]), f"{image.key}, clean"),
                     _said(page, image.clean, image.label))]  # fmt: skip
    if stretch is not None:
        drawn = _arrows(arrays["clean"][k], arrays["flow"][k], stretch, f"{image.key}, flow")
        panels.append(_panel("flow", drawn, [f"longest {radius(view.longest_flow, 'pixels')}"]))
    if full > 0:
        changed = perturbation(arrays["delta"][k], full)
        drawn = _image(changed, f"{image.key}, perturbation")
        panels.append(_panel("perturbation", drawn, [f"largest {radius_255(view.largest_delta)}"]))
    hit = _image(_levels(arrays["adversarial"][k]), f"{image.key}, adversarial")
    panels.append(_panel("adversarial", hit, _said(page, view, image.label)))
    already = image.clean.prediction != image.label
    note = element("span", " · already wrong, not attacked") if already else None
    caption = element("figcaption", element("b", name), " ", element("span", image.key), note)
    held = element("div", panels, class_=f"panels of-{len(panels)}")
    return element("figure", caption, held, _others(page, image), class_="specimen")


def _panel(title: str, drawn: Html, lines: Sequence[Node]) -> Html:
    said = [element("p", line) for line in lines]
    return element("div", element("p", title, class_="panel-title"), drawn, said, class_="panel")


def _said(page: Page, view: GalleryView, label: int) -> list[Node]:
    right = view.prediction == label
    sign, kind = ("✓ ", "right") if right else ("✗ ", "wrong")
    guess = element("span", sign, page.class_name(view.prediction), class_=kind)
    still = None if right else f"label {confidence(view.label_confidence)}"
    return [[guess, " ", confidence(view.confidence)], *([still] if still else [])]


def _others(page: Page, image: GalleryImage) -> Html:
    rows = []
    for name, view in image.attacks.items():
        changes = [radius(view.longest_flow, "pixels") if view.longest_flow else NOTHING,
                   radius_255(view.largest_delta) if view.largest_delta else NOTHING]  # fmt: skip
        cells = [element("td", part) for part in (_said(page, view, image.label)[0], *changes)]
        rows.append(element("tr", element("th", name, scope="row"), cells))
    heads = [
        element("th", text, scope="col") for text in ("attack", "prediction", "flow", "pixels")
    ]
    table = element("table", element("thead", element("tr", heads)), element("tbody", rows))
    opened = element("summary", f"all {len(rows)} attacks")
    return element("details", opened, element("div", table, class_="scroll", tabindex="0"))


def _levels(image: Array) -> NDArray[np.uint8]:
    levels = np.rint(255 * np.clip(image.astype(np.float64), 0, 1))
    return levels.astype(np.uint8).transpose(1, 2, 0)


def _image(levels: NDArray[np.uint8], alt: str) -> Html:
    height, width, channels = levels.shape
    held = Image.fromarray(levels[:, :, 0] if channels == 1 else levels)
    kind = "pixels" if max(height, width) <= _SMALL else None
    size = {"width": width, "height": height}
    return element("img", src=_data(held), alt=alt, class_=kind, **size)


def _data(image: Image.Image) -> str:
    held = io.BytesIO()
    image.save(held, "PNG", compress_level=7)
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode('ascii')}"


def _arrows(clean: Array, flow: Array, stretch: float, title: str) -> Html:
    height, width = clean.shape[1:]
    share = min(1.0, _BACKGROUND / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    back = dimmed(_levels(clean), size).convert("L")
    kind = "pixels" if max(height, width) <= _SMALL else None
    box = {"width": width, "height": height}
    way = "".join(_arrow(*arrow) for arrow in arrow_list(flow, stretch))
    return element(
        "svg",
        element("title", title),
        element("image", href=_data(back), class_=kind, preserveAspectRatio="none", **box),
        element("path", d=way, class_="arrow", stroke_width=max(height, width) / 130),
        viewBox=f"0 0 {width} {height}",
        role="img",
        class_="arrows",
    )


def _arrow(x: float, y: float, dx: float, dy: float) -> str:
    """Return a shaft and two strokes of a head, which is a third as long."""
    if dx == dy == 0:
        return ""
    hx, hy, wx, wy = 0.34 * dx, 0.34 * dy, -0.2 * dy, 0.2 * dx
    return (
        f"M{x:.4g} {y:.4g}l{dx:.3g} {dy:.3g}"
        f"m{wx - hx:.3g} {wy - hy:.3g}L{x + dx:.4g} {y + dy:.4g}l{-hx - wx:.3g} {-hy - wy:.3g}"
    )
