"""Reports that are made up, consistent in themselves: any number of models, images, classes.

Random radii decide which image is broken by what; everything else is counted from them.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jataug.evaluation.report.contents import (
    FORMAT_VERSION,
    AttackRow,
    Check,
    Curve,
    CurvePoint,
    Gallery,
    GalleryImage,
    GalleryView,
    ImageRow,
    Map,
    Minimal,
    ModelReport,
    Rate,
    Report,
    Sanity,
    Transfer,
    Worst,
)

__all__ = ["FLOW", "PIXEL", "made", "written"]

FLOW, PIXEL = 0.3, 8 / 255
_SHARES = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
_THREATS = {
    "noise": "joint",
    "pgd": "pixel",
    "flow": "flow",
    "joint": "joint",
    "rotate": "rotation",
}


def made(
    *,
    models: Sequence[str] = ("classifier",),
    images: int = 40,
    shape: tuple[int, int, int] = (1, 28, 28),
    classes: int = 10,
    names: Mapping[str, str] | None = None,
    hardness: float = 1.0,
    curves: bool = True,
    attacks: Sequence[str] = tuple(_THREATS),
    **fields: Any,
) -> Report:
    """Return a report.

    Args:
        hardness: of the images: 0 breaks at any radius, inf never; else the mean radius over the
            budget.
        curves: whether there are curves, a map and smallest radii.
        fields: of Report, in place of what is made up.
    """
    found = tuple(
        _model(k, name, models, images, shape, classes, hardness, curves, attacks)
        for k, name in enumerate(models)
    )
    report = Report(
        format_version=FORMAT_VERSION, jataug="0.0", created="2026-01-02T03:04:05+00:00",
        command="jataug evaluate model.onnx images.npz -o out", plan_hash="0" * 64,
        source={"kind": "npz", "path": "images.npz", "count": images, "fingerprint": "stat:1"},
        images=images, seed=0, labels="source", measured="float", suite="quick",
        flow={"radius": FLOW, "norm": "l2"}, pixel={"radius": PIXEL, "norm": "linf"},
        class_names=names, environment={"python": "3.11"}, models=found,
    )  # fmt: skip
    return dataclasses.replace(report, **fields)


def written(report: Report, folder: Path) -> Path:
    """Write report.json and the galleries' files; the path of the former."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, model in enumerate(report.models):
        if model.gallery is not None:
            np.savez(folder / model.gallery.file, **_arrays(model, k))
    path = folder / "report.json"
    path.write_text(json.dumps(report.to_dict()))
    return path


def _model(
    number: int, name: str, models: Sequence[str], count: int, shape: tuple[int, int, int],
    classes: int, hardness: float, curves: bool, attacks: Sequence[str],
) -> ModelReport:  # fmt: skip
    rng = np.random.default_rng(number)
    label = rng.integers(0, classes, count)
    right = rng.random(count) < 0.9 if np.isfinite(hardness) else np.ones(count, bool)
    sizes = {b: hardness * r * rng.exponential(size=count) for b, r in _RADII.items()}
    broken = {a: right & _breaks(_THREATS[a.split(":")[0]], sizes, rng, hardness) for a in attacks}
    top = {branch: 4 * radius for branch, radius in _RADII.items()}
    radius = {b: np.where(right & (s <= top[b]), s, np.nan) for b, s in sizes.items()}
    rows = tuple(
        _image(i, label, right, broken, radius if curves else {}, classes) for i in range(count)
    )
    others = [other for other in models if other != name]
    return ModelReport(
        name=name, kind="onnx", path=f"{number}.onnx", sha256=f"{number:064x}", classes=classes,
        image_shape=shape, preprocessing={"mean": [0.0], "std": [1.0]}, provider="CPU",
        clean_accuracy=_rate(right),
        attacks=tuple(_attack(a, right & ~b) for a, b in broken.items()),
        worst=tuple(_worst(broken, right)),
        pixel_curve=_curve("pixel", sizes, right) if curves else None,
        flow_curve=_curve("flow", sizes, right) if curves else None,
        map=_map(sizes, right) if curves else None,
        minimal_pixel=_minimal("pixel", radius, right) if curves else None,
        minimal_flow=_minimal("flow", radius, right) if curves else None,
        sanity=_SANITY[number % 3],
        transfer=tuple(
            Transfer(o, None, a, _rate(right), _rate(right & ~b), _rate(~b))
            for o in others for a, b in broken.items()
        ),
        images=rows,
        gallery=_gallery(number, rows[: min(count, 4)], attacks, classes) if attacks else None,
        warnings=() if count >= 100 else (f"only {count} images, so the intervals are wide",),
    )  # fmt: skip


_RADII = {"pixel": PIXEL, "flow": FLOW}
_SANITY = (
    Sanity("pass", (Check("steps", "more steps are not weaker", "pass", "3 against 4", {"p": 0.5}),
                    Check("transfer", "transfer is not stronger", "skipped", "no other", {}))),
    Sanity("suspect", (Check("gradient", "the gradient is there", "fail", "zero for 100%",
                             {"zero": 1.0, "agree": 0.0}),)),
    Sanity("none", ()),
)  # fmt: skip


def _breaks(threat: str, sizes: Mapping[str, Any], rng: Any, hardness: float) -> Any:
    if not np.isfinite(hardness):
        return np.zeros(len(sizes["flow"]), bool)
    within = {b: sizes[b] <= r for b, r in _RADII.items()}
    either = within["pixel"] | within["flow"]
    lucky = rng.random(len(either)) < 0.3
    return {**within, "joint": either, "rotation": lucky}[threat]


def _rate(right: Any) -> Rate:
    return Rate.from_counts(int(np.sum(right)), len(right))


def _attack(name: str, standing: Any) -> AttackRow:
    threat = _THREATS[name.split(":")[0]]
    held = {"steps": 20, "restarts": 1} if threat != "rotation" else {"draws": 10}
    return AttackRow(
        name, threat, held, _rate(standing), 1.5, 20.0, 20.0, 3723.4,
        PIXEL if threat in ("pixel", "joint") else None,
        FLOW if threat in ("flow", "joint") else None,
    )  # fmt: skip


def _worst(broken: Mapping[str, Any], right: Any) -> list[Worst]:
    within = {"pixel": ("pixel",), "flow": ("flow",), "joint": ("pixel", "flow", "joint")}
    found = []
    for threat, inside in {**within, "all": (*within["joint"], "rotation")}.items():
        names = tuple(a for a in broken if _THREATS[a.split(":")[0]] in inside)
        if names:
            standing = right & ~np.any([broken[a] for a in names], axis=0)
            found.append(Worst(threat, names, _rate(standing)))
    return found


def _curve(branch: str, sizes: Mapping[str, Any], right: Any) -> Curve:
    radii = [0.0, *(share * _RADII[branch] for share in _SHARES)]
    points = [CurvePoint(r, _rate(right & (sizes[branch] > r) if r else right)) for r in radii]
    unit = "image" if branch == "pixel" else "pixels"
    return Curve("pgd" if branch == "pixel" else "flow", unit, {"steps": 20}, tuple(points))


def _map(sizes: Mapping[str, Any], right: Any) -> Map:
    shares = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
    flow, pixel = (tuple(share * _RADII[b] for share in shares) for b in ("flow", "pixel"))
    cells = tuple(
        tuple(
            _rate(right & ((sizes["flow"] > f) | (f == 0)) & ((sizes["pixel"] > p) | (p == 0)))
            for p in pixel
        )
        for f in flow
    )
    return Map("joint", {"steps": 20}, flow, pixel, cells)


def _minimal(branch: str, radius: Mapping[str, Any], right: Any) -> Minimal | None:
    held = np.sort(np.where(np.isnan(radius[branch]), np.inf, radius[branch])[right])
    if not len(held):
        return None
    quartiles = [float(held[max(0, -(-len(held) * k // 4) - 1)]) for k in (1, 2, 3)]
    low, middle, high = (q if np.isfinite(q) else None for q in quartiles)
    unit = "image" if branch == "pixel" else "pixels"
    found = int(np.isfinite(held).sum())
    return Minimal("pgd", unit, 4 * _RADII[branch], 5, found, len(held), low, middle, high)


def _image(
    i: int, label: Any, right: Any, broken: Mapping[str, Any], radius: Mapping[str, Any],
    classes: int,
) -> ImageRow:  # fmt: skip
    by = tuple(a for a, b in broken.items() if b[i])
    first = "clean" if not right[i] else next(iter(by), None)
    mine, other = int(label[i]), int((label[i] + 1) % classes)
    smallest = [radius.get(b, np.full(len(label), np.nan))[i] for b in ("pixel", "flow")]
    return ImageRow(
        i, f"{i:05d}", mine, mine if right[i] else other, first, by,
        {"clean": 0.5, **dict.fromkeys(broken, 2.5)},
        {"clean": mine if right[i] else other,
         **{a: other if b[i] else mine for a, b in broken.items()}},
        *(None if np.isnan(size) else float(size) for size in smallest),
    )  # fmt: skip


def _gallery(
    number: int, rows: Sequence[ImageRow], attacks: Sequence[str], classes: int
) -> Gallery:
    def view(prediction: int, name: str | None, label: int) -> GalleryView:
        moved = name is not None and _THREATS[name.split(":")[0]] in ("flow", "joint")
        sure = 0.75 if prediction != label else 0.99951
        own = 0.2 if prediction != label else sure
        return GalleryView(prediction, sure, own, PIXEL if name else 0.0, FLOW if moved else 0.0)

    images = tuple(
        GalleryImage(
            k, row.index, row.key, row.label, view(row.clean_prediction, None, row.label),
            {a: view(row.prediction[a], a, row.label) for a in attacks},
        )
        for k, row in enumerate(rows)
    )  # fmt: skip
    return Gallery(f"gallery-{number}.npz", images)


def _arrays(model: ModelReport, number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    assert model.gallery is not None
    shown, shape = model.gallery.images, tuple(model.image_shape)
    clean = rng.random((len(shown), *shape), np.float32)
    arrays: dict[str, Any] = {"clean": clean, "index": np.array([i.index for i in shown])}
    for name in shown[0].attacks:
        delta = rng.choice(np.array([-PIXEL, PIXEL], np.float32), clean.shape)
        flow = rng.uniform(-FLOW, FLOW, (len(shown), 2, *shape[1:])) / np.sqrt(2)
        arrays[f"{name}.adversarial"] = np.clip(clean + delta, 0, 1)
        arrays[f"{name}.delta"] = delta
        arrays[f"{name}.flow"] = flow.astype(np.float16)
    return arrays
