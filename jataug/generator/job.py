"""Everything that has to be right before the first byte is written."""

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..data import Geometry, Source, class_map, open_source, source_labels
from ..data.labels import Classes
from ..errors import DataError
from .destination import check_destination
from .layout import check_names, image_names
from .plan import Plan, check_integer
from .session import AttackSession, artifact_hash

__all__ = ["Job", "prepare_job"]


@dataclass(frozen=True, eq=False)
class Job:
    """A checked request.

    Attributes:
        source: of the images.
        source_path: where it lies, or None for a source that does not say.
        geometry: how its images become the model's.
        labels: (count,), int64, in the model's numbering; None for its own prediction.
        names: the class names, where they are known.
        name_of: the path of a sample's PNG.
        plan: what will be made.
        root: where.
        on_error: whether a sample that cannot be used stops the run or is skipped.
    """

    source: Source
    source_path: str | None
    geometry: Geometry
    labels: NDArray[np.int64] | None
    names: dict[int, str] | None
    name_of: Callable[[int], str]
    plan: Plan
    root: Path
    on_error: Literal["stop", "skip"]


def prepare_job(
    session: AttackSession,
    artifact: str | PathLike[str] | None,
    source: str | PathLike[str] | Source,
    destination: str | PathLike[str],
    *,
    labels: Literal["source", "predicted"],
    classes: Classes,
    resize: int | None,
    crop: int | tuple[int, int] | None,
    limit: int | None,
    on_error: Literal["stop", "skip"],
    source_hash: bool,
    **options: Any,
) -> Job:
    """Check a request as far as that goes without reading an image; nothing is written.

    Raises:
        DataError: the source, the labels, an option or the destination cannot be used.
    """
    if on_error not in ("stop", "skip"):
        raise DataError(f"on_error: expected stop or skip, got {on_error!r}")
    if limit is not None:
        check_integer("limit", limit, 1)
    geometry = Geometry(resize, crop)
    held = source if isinstance(source, Source) else open_source(source)
    described = held.describe(content=source_hash)
    path = described.pop("path", None)
    meaning = class_map(held, session.classes, classes) if labels == "source" else None
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
        **options,
    )
    numbers = None if meaning is None else source_labels(held, meaning, session.classes)
    name_of = image_names(held, numbers, meaning.names if meaning else None)
    if plan.format == "folder":
        if channel not in (1, 3):
            raise DataError(f"format folder: expected 1 or 3 channels, got {channel}; use npz")
        check_names(name_of, held, plan.count)
    root = Path(destination)
    if path is not None and Path(path).is_dir() and root.resolve().is_relative_to(path):
        raise DataError(f"{root}: expected a destination outside the source {path}; choose another")
    check_destination(root, plan)
    names = dict(meaning.names) if meaning and meaning.names else None
    return Job(held, path, geometry, numbers, names, name_of, plan, root, on_error)
