"""What an evaluation says: plain frozen records, written as report.json (schema/report-1.json)."""

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from ...errors import DataError
from .records import Gallery, GalleryImage, GalleryView, ImageRow, Rate

__all__ = [
    "FORMAT_VERSION",
    "AttackRow",
    "Check",
    "Curve",
    "CurvePoint",
    "Gallery",
    "GalleryImage",
    "GalleryView",
    "ImageRow",
    "Map",
    "Minimal",
    "ModelReport",
    "Rate",
    "Report",
    "Sanity",
    "Transfer",
    "Worst",
    "load_report",
    "schema",
]

FORMAT_VERSION = 1
Threat = Literal["none", "pixel", "flow", "joint", "rotation", "all"]
Verdict = Literal["pass", "fail", "skipped"]


@dataclass(frozen=True)
class AttackRow:
    """One attack on one model.

    Attributes:
        name: the attack as it was asked for.
        threat: which set of changes it may make; "rotation" is outside the two budgets.
        parameters: steps, restarts, objective and so on, radii included.
        accuracy: of the images still classified as their label.
        mean_loss: mean cross entropy of the images as attacked.
        forwards: forward passes an image, gradients not counted.
        gradients: gradients an image.
        seconds: of the run that made it.
        largest_delta: the largest |a - T(x, w)|, or |perturbed - x| for the composition
            pixel-spatial, image units, measured in float64.
        longest_flow: the longest flow vector, pixels, likewise; None outside the flow budget.
    """

    name: str
    threat: Threat
    parameters: Mapping[str, Any]
    accuracy: Rate
    mean_loss: float
    forwards: float
    gradients: float
    seconds: float
    largest_delta: float | None
    longest_flow: float | None


@dataclass(frozen=True)
class Worst:
    """The images that no attack of a threat breaks: worst case over `attacks`, image by image."""

    threat: Threat
    attacks: Sequence[str]
    accuracy: Rate


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy at one radius; an image broken at a smaller radius counts as broken."""

    radius: float
    accuracy: Rate


@dataclass(frozen=True)
class Curve:
    """Accuracy against a radius, the other one 0.

    Attributes:
        unit: "image" (images in [0, 1]) or "pixels".
    """

    attack: str
    unit: Literal["image", "pixels"]
    parameters: Mapping[str, Any]
    points: Sequence[CurvePoint]


@dataclass(frozen=True)
class Map:
    """Accuracy against both radii: accuracy[i][j] is at flow[i] pixels and pixel[j]."""

    attack: str
    parameters: Mapping[str, Any]
    flow: Sequence[float]
    pixel: Sequence[float]
    accuracy: Sequence[Sequence[Rate]]


@dataclass(frozen=True)
class Minimal:
    """The smallest radius that breaks an image, over the images classified right without attack.

    Attributes:
        attack: what searched.
        unit: of the radii.
        largest: the largest radius tried.
        rounds: bisections after the radii of the curve.
        found: images with a radius; the others withstood `largest`.
        median: over all images, None where more than half withstood; likewise the quartiles.
    """

    attack: str
    unit: Literal["image", "pixels"]
    largest: float
    rounds: int
    found: int
    total: int
    lower_quartile: float | None
    median: float | None
    upper_quartile: float | None


@dataclass(frozen=True)
class Check:
    """One sanity check against masked gradients.

    Attributes:
        name: a short word.
        title: what should hold.
        detail: what was measured, and the tolerance.
        numbers: the same for machines.
    """

    name: str
    title: str
    verdict: Verdict
    detail: str
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class Sanity:
    """All checks; `verdict` is "suspect" as soon as one fails, "none" where none could run."""

    verdict: Literal["pass", "suspect", "none"]
    checks: Sequence[Check]


@dataclass(frozen=True)
class Transfer:
    """Adversarial images of this model, measured on another one.

    Attributes:
        target: the name of the other model.
        clean: its accuracy without an attack, on the same images.
        direct: this model's accuracy on the same adversarial images.
        accuracy: the other model's.
    """

    target: str
    sha256: str | None
    attack: str
    clean: Rate
    direct: Rate
    accuracy: Rate


@dataclass(frozen=True)
class ModelReport:
    """Everything about one model.

    Attributes:
        name: unique in the report.
        kind: "onnx" or "torch".
        path: of the file, None for a module in memory.
        sha256: of the file; of a torch module: of its state dict; None for another object.
        image_shape: (channel, height, width).
        preprocessing: what the model wants, or None.
        provider: where it ran.
        warnings: what a reader must know.
    """

    name: str
    kind: Literal["onnx", "torch"]
    path: str | None
    sha256: str | None
    classes: int
    image_shape: Sequence[int]
    preprocessing: Mapping[str, Any] | None
    provider: str
    clean_accuracy: Rate
    attacks: Sequence[AttackRow]
    worst: Sequence[Worst]
    pixel_curve: Curve | None
    flow_curve: Curve | None
    map: Map | None
    minimal_pixel: Minimal | None
    minimal_flow: Minimal | None
    sanity: Sanity
    transfer: Sequence[Transfer]
    images: Sequence[ImageRow]
    gallery: Gallery | None
    warnings: Sequence[str]


@dataclass(frozen=True)
class Report:
    """An evaluation of one or more models on the same images.

    Attributes:
        format_version: of this file.
        jataug: the version that wrote it.
        created: UTC, ISO 8601.
        command: what was typed, or None from Python.
        plan_hash: sha256 of the plan: models, images, attacks, seed.
        source: kind, path, count and fingerprint of the images.
        images: how many were used, from the first.
        labels: where the ground truth is from: "source" or "predicted".
        measured: what was measured: "float" images, or "uint8" where they were quantised first.
        flow: radius in pixels, norm.
        pixel: radius in image units, norm.
        class_names: by class, as far as known, or None.
        environment: versions, processor.
    """

    format_version: int
    jataug: str
    created: str
    command: str | None
    plan_hash: str
    source: Mapping[str, Any]
    images: int
    seed: int
    labels: Literal["source", "predicted"]
    measured: Literal["float", "uint8"]
    suite: str | None
    flow: Mapping[str, Any]
    pixel: Mapping[str, Any]
    class_names: Mapping[str, str] | None
    environment: Mapping[str, Any]
    models: Sequence[ModelReport]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON types, as schema() has it."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), allow_nan=False))
        return plain


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) that every report.json of this version meets."""
    text = files(__package__).joinpath(f"schema/report-{FORMAT_VERSION}.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def load_report(path: str | PathLike[str]) -> Report:
    """Read a report.json.

    Raises:
        DataError: it cannot be read, is no report, or is newer than this version.
    """
    try:
        data = json.loads(Path(path).read_text("utf-8"))
        version = data["format_version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: expected a report.json: {error}") from None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: expected format_version {FORMAT_VERSION}, got {version}; update jataug"
        )
    try:
        found: Report = _read(Report, data)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: expected a whole report, {error} is missing") from None
    return found


@functools.cache  # a report has a record for every image, and annotations are slow to resolve
def _hints(kind: type) -> list[tuple[str, Any]]:
    hints = typing.get_type_hints(kind)
    return [(field.name, hints[field.name]) for field in dataclasses.fields(kind)]


def _read(kind: Any, value: Any) -> Any:
    """Build nested records from plain JSON, as the annotations say."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return kind(**{name: _read(hint, value[name]) for name, hint in _hints(kind)})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if value is None or origin is None:
        return value
    if origin in (typing.Union, types.UnionType):
        return _read(next(part for part in arguments if part is not type(None)), value)
    if issubclass(origin, Mapping) if isinstance(origin, type) else False:
        return {name: _read(arguments[1], item) for name, item in value.items()}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return tuple(_read(arguments[0], item) for item in value)
    return value
