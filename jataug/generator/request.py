"""The request of a run: all input, checked before the first byte is written."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..checks import canonical, check_integer
from ..data import (
    ClassOrder,
    Geometry,
    Source,
    check_outside,
    class_map,
    open_source,
    source_labels,
)
from ..data.class_map import Classes
from ..data.skip import check_on_error
from ..data.source import check_description
from ..data.source_snapshot import SourceSnapshot
from ..dataset.image_paths import check_format, image_names
from ..dataset.plan import Plan
from .dataset_folder import check_destination
from .open_session import AttackSession, artifact_hash

__all__ = ["Request", "prepare_request"]


@dataclass(frozen=True, eq=False)
class Request:
    """A checked request.

    Attributes:
        source: source of the images.
        source_path: path of the source; None for a source without one.
        geometry: resize and crop of the images.
        labels: (count,), int64, in the model's numbering; None for the model's own predictions.
        names: class names by class, or None if they are unknown.
        snapshot: size and time of the source's files; None for a source without a path.
        plan: the plan of the data set.
        root: the destination.
        model: sha256 and preprocessing of the classifier; None if the artifact lacks them.
        on_error: "stop" or "skip" at a sample that cannot be used.
        warnings: warnings on the artifact, one line each.
    """

    source: Source
    source_path: str | None
    geometry: Geometry
    labels: NDArray[np.int64] | None
    names: dict[int, str] | None
    snapshot: SourceSnapshot | None
    plan: Plan
    root: Path
    model: Mapping[str, Any] | None
    on_error: Literal["stop", "skip"]
    warnings: tuple[str, ...] = ()

    @cached_property
    def name_of(self) -> Callable[[int], str]:
        """Function from the index of a sample to the path of its PNG file."""
        return image_names(self.source, self.labels, self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "name_of"}


def prepare_request(
    session: AttackSession,
    artifact: str | PathLike[str] | None,
    source: str | PathLike[str] | Source,
    destination: str | PathLike[str],
    *,
    labels: Literal["source", "predicted"],
    classes: Classes,
    class_order: ClassOrder | None,
    resize: int | None,
    crop: int | tuple[int, int] | None,
    limit: int | None,
    on_error: Literal["stop", "skip"],
    source_hash: bool,
    **options: Any,
) -> Request:
    """Check all options and return the request. No image is read and nothing is written.

    Raises:
        DataError: the source, the labels, an option or the destination cannot be used.
    """
    check_on_error(on_error)
    if limit is not None:
        check_integer("limit", limit, 1)
    geometry = Geometry(resize, crop)
    held = source if isinstance(source, Source) else open_source(source)
    described = held.describe(content=source_hash)
    check_description(held, described)
    path = described.pop("path", None)
    meaning = None
    if labels == "source":
        meaning = class_map(held, session.classes, classes, class_order)
    channel, height, width = session.image_shape
    plan = Plan(
        artifact=artifact_hash(artifact, session),
        attack=session.config.to_dict(),
        image_shape=(channel, height, width),
        classes=session.classes,
        count=min(len(held), limit or len(held)),
        labels=labels,
        class_labels=meaning.given if meaning else None,
        resize=geometry.resize,
        crop=geometry.crop,
        source=described,
        backend=getattr(session, "backend", "onnxruntime"),
        tf32=getattr(session, "tf32", False),
        **options,
    )
    numbers = None if meaning is None else source_labels(held, meaning, session.classes)
    names = dict(meaning.names) if meaning and meaning.names else None
    root = Path(destination)
    check_outside(root, held)
    snapshot = SourceSnapshot.of(held, path, plan.count)
    check_destination(root, plan, snapshot)
    warnings = getattr(session, "warnings", ())
    request = Request(
        held,
        path,
        geometry,
        numbers,
        names,
        snapshot,
        plan,
        root,
        _model(session),
        on_error,
        warnings,
    )
    check_format(plan, request.name_of, held)
    return request


def _model(session: AttackSession) -> dict[str, Any] | None:
    manifest = session.manifest
    if "preprocessing" not in manifest:
        return None
    model = {"sha256": manifest.get("model_sha256"), "preprocessing": manifest["preprocessing"]}
    plain: dict[str, Any] = json.loads(canonical(model))
    return plain
