"""The images of an evaluation, read a batch at a time, with their labels."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any, Literal

import numpy as np

from ..checks import check_integer
from ..data import (
    ClassOrder,
    Geometry,
    Skip,
    Source,
    class_map,
    open_source,
    prepare,
    source_labels,
)
from ..data.class_map import Classes
from ..data.skip import HINT, OnError, check_on_error
from ..data.source import check_description
from ..errors import DataError
from ..finalize import from_levels
from .models.model import Array

__all__ = ["Images", "open_images"]


@dataclass(frozen=True, eq=False)
class Images:
    """The first usable samples of a source, in the shape that a model takes.

    Attributes:
        labels: (count,), int64, in the model's numbering; None for the model's own predictions.
        names: names of the classes, as far as they are known.
        described: kind, count, fingerprint and path of the source. If samples were skipped,
            `skipped` has the index, key and reason of each.
        indices: (count,), int64; positions of the samples in the source.
        skipped: the samples between them that cannot be used.
    """

    source: Source
    geometry: Geometry
    shape: tuple[int, int, int]
    count: int
    labels: Array | None
    names: Mapping[int, str] | None
    described: Mapping[str, Any]
    indices: Array
    skipped: tuple[Skip, ...] = ()

    def read(self, start: int, stop: int) -> Array:
        """Return samples [start, stop): (samples, channel, height, width), float32 in [0, 1].

        Raises:
            DataError: an image cannot be used; the message names it.
        """
        try:
            levels = [
                prepare(self.source.read(i), self.geometry, self.shape, self.source.where(i))
                for i in map(int, self.indices[start:stop])
            ]
        except DataError as error:
            raise DataError(f"{error} {HINT}") from None
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
    class_order: ClassOrder | None = None,
    resize: int | None,
    crop: int | tuple[int, int] | None,
    limit: int | None,
    on_error: OnError = "stop",
) -> Images:
    """Return the images of a source, after checks that read none of them.

    To skip unusable images, each image is read once.

    Raises:
        DataError: the source or its labels do not fit the model, it has fewer images than
            `limit`, or none can be used.
    """
    if labels not in ("source", "predicted"):
        raise DataError(f"labels: expected source or predicted, got {labels!r}")
    check_on_error(on_error)
    held = source if isinstance(source, Source) else open_source(source)
    indices, geometry = np.arange(_count(held, limit)), Geometry(resize, crop)
    meaning = None
    if labels == "source":
        meaning = class_map(held, model_classes, classes, class_order)
    numbers = None if meaning is None else source_labels(held, meaning, model_classes)
    skipped = _unusable(held, geometry, shape, len(indices)) if on_error == "skip" else ()
    indices = np.setdiff1d(indices, [skip.index for skip in skipped]).astype(np.int64)
    if not len(indices):
        raise DataError(
            f"source: expected at least one image that can be used, got none of {len(skipped)}; "
            f"the first: {skipped[0].reason}"
        )
    described = held.describe()
    check_description(held, described)
    listed = {"skipped": [asdict(skip) for skip in skipped]} if skipped else {}
    return Images(
        held,
        geometry,
        shape,
        len(indices),
        None if numbers is None else numbers[indices],
        meaning.names if meaning else None,
        {**described, **listed},
        indices,
        skipped,
    )


def _unusable(
    source: Source, geometry: Geometry, shape: tuple[int, int, int], count: int
) -> tuple[Skip, ...]:
    found = []
    for index in range(count):
        try:
            prepare(source.read(index), geometry, shape, source.where(index))
        except DataError as error:
            found.append(Skip.of(source, index, error, "skip"))
    return tuple(found)


def _count(source: Source, limit: int | None) -> int:
    if limit is not None:
        check_integer("limit", limit, 1)
    if not len(source):
        raise DataError("source: it has no images")
    if limit is not None and limit > len(source):
        raise DataError(
            f"limit: {limit} images were asked for, and the source has {len(source)}; lower the "
            "limit"
        )
    return limit or len(source)
