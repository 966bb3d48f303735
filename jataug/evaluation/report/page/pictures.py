"""The gallery: clean, flow, perturbation, adversarial, as pictures inside the page."""

import base64
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....drawing import arrow_list, dimmed, full_scale, lengthening, perturbation
from ....errors import DataError
from ..contents import AttackRow, Gallery, GalleryImage, ModelReport
from .subject import Shown

__all__ = ["Picture", "Pictures", "Specimen", "pictures_of", "shown_attack"]

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


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
        data: a data: URL of a PNG.
        alt: what it shows, in words.
        width: of the image, pixels.
        height: likewise.
        path: of the arrows over it, as SVG's path data; empty where there are none.
    """

    data: str
    alt: str
    width: int
    height: int
    path: str = ""

    @property
    def small(self) -> bool:
        """Whether it is shown pixel by pixel."""
        return max(self.width, self.height) <= _SMALL

    @property
    def stroke(self) -> float:
        """The width of the arrows' strokes."""
        return max(self.width, self.height) / 130


@dataclass(frozen=True)
class Specimen:
    """The pictures of one image; `flow` and `delta` are None where nothing moved or changed."""

    image: GalleryImage
    clean: Picture
    flow: Picture | None
    delta: Picture | None
    adversarial: Picture

    @property
    def panels(self) -> int:
        """How many pictures there are."""
        return 2 + (self.flow is not None) + (self.delta is not None)


@dataclass(frozen=True)
class Pictures:
    """The gallery of one model.

    Attributes:
        reason: why there are no pictures; empty where there are.
        attack: whose pictures they are.
        how: what it changes, in words.
        full: the perturbation that is drawn black or white; 0 where nothing changed.
        stretch: how many times as long as they are the arrows are drawn; None where nothing moved.
        small: whether the images are shown pixel by pixel.
        specimens: one an image.
    """

    reason: str = ""
    attack: str = ""
    how: str = ""
    full: float = 0.0
    stretch: float | None = None
    small: bool = False
    specimens: Sequence[Specimen] = ()


def pictures_of(one: Shown) -> Pictures:
    """Return the pictures of a model.

    Raises:
        DataError: the file of the pictures is not what the report says it is.
    """
    gallery, attack = one.model.gallery, shown_attack(one.model)
    if gallery is None or attack is None:
        return Pictures("No pictures were kept.")
    if Path(gallery.file).name != gallery.file:
        raise DataError(
            f"gallery: expected the name of a file beside the report, got {gallery.file!r}"
        )
    path = None if one.folder is None else one.folder / gallery.file
    if path is None or not path.is_file():
        return Pictures(f"The pictures are in {gallery.file}, which was not beside the report.")
    arrays = _read(path, gallery, attack, one.model)
    places = [image.position for image in gallery.images]
    deltas, flows = arrays["delta"][places], arrays["flow"][places].astype(np.float64)
    full = full_scale(list(deltas))
    stretch = lengthening(list(flows)) if flows.any() else None
    row = next(row for row in one.model.attacks if row.name == attack)
    return Pictures(
        attack=attack,
        how=_HOW.get(row.threat, "attacked"),
        full=full,
        stretch=stretch,
        small=max(one.model.image_shape[1:]) <= _SMALL,
        specimens=[_specimen(image, arrays, full, stretch) for image in gallery.images],
    )


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


def _specimen(
    image: GalleryImage, arrays: Mapping[str, Array], full: float, stretch: float | None
) -> Specimen:
    k = image.position
    clean, delta, hit = (arrays[name][k] for name in ("clean", "delta", "adversarial"))
    flow = None
    if stretch is not None:
        flow = _arrows(clean, arrays["flow"][k], stretch, f"{image.key}, flow")
    return Specimen(
        image,
        _picture(_levels(clean), f"{image.key}, clean"),
        flow,
        _picture(perturbation(delta, full), f"{image.key}, perturbation") if full > 0 else None,
        _picture(_levels(hit), f"{image.key}, adversarial"),
    )


def _levels(image: Array) -> NDArray[np.uint8]:
    levels = np.rint(255 * np.clip(image.astype(np.float64), 0, 1))
    return levels.astype(np.uint8).transpose(1, 2, 0)


def _picture(levels: NDArray[np.uint8], alt: str) -> Picture:
    height, width, channels = levels.shape
    held = Image.fromarray(levels[:, :, 0] if channels == 1 else levels)
    return Picture(_data(held), alt, width, height)


def _data(image: Image.Image) -> str:
    held = io.BytesIO()
    image.save(held, "PNG", compress_level=7)
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode('ascii')}"


def _arrows(clean: Array, flow: Array, stretch: float, alt: str) -> Picture:
    height, width = clean.shape[1:]
    share = min(1.0, _BACKGROUND / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    back = dimmed(_levels(clean), size).convert("L")
    way = "".join(_arrow(*arrow) for arrow in arrow_list(flow, stretch))
    return Picture(_data(back), alt, width, height, way)


def _arrow(x: float, y: float, dx: float, dy: float) -> str:
    """Return a shaft and two strokes of a head, which is a third as long."""
    if dx == dy == 0:
        return ""
    hx, hy, wx, wy = 0.34 * dx, 0.34 * dy, -0.2 * dy, 0.2 * dx
    return (
        f"M{x:.4g} {y:.4g}l{dx:.3g} {dy:.3g}"
        f"m{wx - hx:.3g} {wy - hy:.3g}L{x + dx:.4g} {y + dy:.4g}l{-hx - wx:.3g} {-hy - wy:.3g}"
    )
