"""The images of an evaluation, read a batch at a time, with their labels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import numpy as np

from ..data import Geometry, Source, class_map, open_source, prepare, source_labels
from ..data.labels import Classes
from ..errors import DataError
from ..finalize import from_levels
from .model import Array

__all__ = ["Images", "open_images"]


@dataclass(frozen=True, eq=False)
class Images:
    """The first `count` samples of a source, as a model of `shape` takes them.

    Attributes:
        labels: (count,), int64, in the model's numbering; None for the model's own prediction.
        names: of the classes, as far as they are known.
        described: kind, count and fingerprint of the source, and its path.
    """

    source: Source
    geometry: Geometry
    shape: tuple[int, int, int]
    count: int
    labels: Array | None
    names: Mapping[int, str] | None
    described: Mapping[str, Any]

    def read(self, start: int, stop: int) -> Array:
        """Return samples [start, stop): (samples, channel, height, width), float32 in [0, 1].

        Raises:
            DataError: an image cannot be used; the message names it.
        """
        levels = [
            prepare(self.source.read(i), self.geometry, self.shape, self.source.where(i))
            for i in range(start, stop)
        ]
        return from_levels(np.stack(levels))

    def batches(self, size: int) -> Iterator[tuple[slice, Array]]:
        """Yield (positions, images) over all samples."""
        for start in range(0, self.count, size):
            stop = min(start + size, self.count)
            yield slice(start, stop), self.read(start, stop)


def open_images(
    source: str | PathLike[str] | Source,
    shape: tuple[int, int, int],
    model_classes: int,
    *,
    labels: Literal["source", "predicted"],
    classes: Classes,
    resize: int | None,
    crop: int | tuple[int, int] | None,
    limit: int | None,
) -> Images:
    """Return the images of a source, checked as far as that goes without reading one.

    Raises:
        DataError: the source or its labels do not fit the model, or it has fewer images than
            `limit`.
    """
    if labels not in ("source", "predicted"):
        raise DataError(f"labels: expected source or predicted, got {labels!r}")
    held = source if isinstance(source, Source) else open_source(source)
    count = _count(held, limit)
    meaning = class_map(held, model_classes, classes) if labels == "source" else None
    numbers = None if meaning is None else source_labels(held, meaning, model_classes)[:count]
    return Images(
        held,
        Geometry(resize, crop),
        shape,
        count,
        numbers,
        meaning.names if meaning else None,
        held.describe(),
    )


def _count(source: Source, limit: int | None) -> int:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise DataError(f"limit: expected an integer >= 1, got {limit!r}")
    if not len(source):
        raise DataError("source: expected at least one image, got none")
    if limit is not None and limit > len(source):
        raise DataError(
            f"limit: expected at most {len(source)}, the images of the source, got {limit}"
        )
    return limit or len(source)
