"""preview: attacks a few images and draws the results, before a data set is generated."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from os import PathLike
from typing import Any, Literal

import numpy as np
from PIL import Image

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
from ..data.skip import OnError, check_on_error
from ..drawing.grid import Guess, Row, draw
from ..errors import DataError
from .open_session import AttackSession

__all__ = ["guess", "preview"]


def preview(
    session: AttackSession,
    source: str | PathLike[str] | Source,
    count: int = 8,
    seed: int = 0,
    *,
    epoch: int = 0,
    labels: Literal["source", "predicted"] = "source",
    classes: Classes = None,
    class_order: ClassOrder | None = None,
    resize: int | None = None,
    crop: int | tuple[int, int] | None = None,
    title: str = "",
    on_error: OnError = "stop",
    skipped: Callable[[Skip], object] | None = None,
) -> Image.Image:
    """Attack `count` images spread over a source and return a picture of the results.

    The images equal those that generate makes from the same samples with the same options, except
    for rounding.

    Args:
        session: an open jataug.Session.
        source: a path as for jataug.data.open_source, or a source.
        count: number of images; all of them if the source has fewer.
        seed: seed of the random starts and targets.
        epoch: number of the pass; each epoch draws other starts and targets.
        labels: "source" takes labels from the source, "predicted" the model's own predictions.
        classes: the model's class of each class folder; see generate.
        class_order: how class folders are numbered; see generate.
        resize: length of the shorter side, pixels.
        crop: side of the centre crop, or (height, width), pixels.
        title: title above the picture.
        on_error: "stop" raises an error at an unusable image; "skip" takes the next one instead.
        skipped: called with each skipped image.

    Raises:
        DataError: the source, an image of it or an option cannot be used.
    """
    check_integer("count", count, 1)
    check_on_error(on_error)
    held = source if isinstance(source, Source) else open_source(source)
    if labels not in ("source", "predicted"):
        raise DataError(f"labels: expected source or predicted, got {labels!r}")
    meaning = None
    if labels == "source":
        meaning = class_map(held, session.classes, classes, class_order)
    names = (meaning.names if meaning else None) or {}
    usable = _Usable(held, Geometry(resize, crop), session.image_shape, on_error, skipped)
    indices, images = usable.spread(count)
    logits = np.asarray(session.predict(images))
    clean = logits.argmax(-1)
    given = clean
    if meaning is not None:
        given = source_labels(held, meaning, session.classes, indices)
    result = session.attack(images, given, np.array(indices), seed=seed, epoch=epoch)
    moved = session.config.flow.radius > 0
    rows = [
        Row(
            clean=images[k],
            adversarial=result.adversarial[k],
            flow=result.flow[k] if moved else None,
            delta=result.delta[k],
            label=names.get(int(given[k]), str(given[k])),
            before=guess(logits[k], int(clean[k]), int(given[k]), names),
            after=guess(result.logits[k], int(result.prediction[k]), int(given[k]), names),
            name=held.key(index),
        )
        for k, index in enumerate(indices)
    ]
    return draw(rows, title)


def guess(logits: Any, predicted: int, label: int, names: Mapping[int, str]) -> Guess:
    """Return what a model says of an image, from its logits (classes,)."""
    finite = np.nan_to_num(np.asarray(logits, np.float64), nan=-1e30, posinf=1e30, neginf=-1e30)
    shares = np.exp(finite - finite.max())
    shares /= shares.sum()
    name = names.get(predicted, str(predicted))
    return Guess(name, float(shares[predicted]), float(shares[label]))


class _Usable:
    """The images of a source that a model can take.

    Args:
        source: of the images.
        geometry: how they become the model's.
        shape: (channel, height, width) of the model's.
        on_error: whether one that cannot be used stops everything.
        skipped: hears of each that is left out.
    """

    def __init__(
        self,
        source: Source,
        geometry: Geometry,
        shape: tuple[int, int, int],
        on_error: OnError,
        skipped: Callable[[Skip], object] | None,
    ) -> None:
        self._source, self._geometry, self._shape = source, geometry, shape
        self._on_error, self._told = on_error, skipped

    def spread(self, count: int) -> tuple[list[int], Any]:
        """Return `count` positions and their images, evenly spread: class folders come one after
        the other. Each position stands for those up to the next: the first usable one is taken.

        Raises:
            DataError: one cannot be used, or with "skip" none of them can.
        """
        length = len(self._source)
        count = min(length, count)
        ends = [k * length // count for k in range(count + 1)]
        found = [self._first(range(*span)) for span in pairwise(ends)]
        taken = [pair for pair in found if pair is not None]
        if not taken:
            raise DataError(
                f"source: expected at least one image that can be used, got none of {length}"
            )
        return [index for index, _ in taken], np.stack([image for _, image in taken])

    def _first(self, span: range) -> tuple[int, Any] | None:
        for index in span:
            where = self._source.where(index)
            try:
                image = self._source.read(index)
                return index, prepare(image, self._geometry, self._shape, where)
            except DataError as error:
                skip = Skip.of(self._source, index, error, self._on_error)
            if self._told is not None:
                self._told(skip)
        return None
