"""The images of a source in memory or read ahead by threads, and which of them are held out."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import (
    Classes,
    Geometry,
    Source,
    check_outside,
    class_map,
    open_source,
    prepare,
    read_classes,
    source_labels,
)
from ..errors import DataError
from .defaults import choose
from .train_config import TrainConfig

__all__ = ["IN_MEMORY", "Pixels", "TrainData", "epoch_order", "load_data", "permutation"]

IN_MEMORY = 2_000_000_000
"""Bytes of images that are held in memory; more are read from the source batch by batch."""

_VALIDATION, _ORDER = 1, 2
"""Second word of the key of each permutation; the tensor id is 0, which no sample's stream has."""


@dataclass(frozen=True, eq=False)
class TrainData:
    """A labelled source, split.

    Attributes:
        config: the run's, with what the user left out.
        images: reads images by their indices in the source.
        labels: (N,), int64, of the whole source.
        classes: how many there are.
        names: the class of each class name, or None where classes have no names.
        shape: (channel, height, width).
        train: the indices to train on.
        validation: the indices that are held out.
        source: the source itself.
        description: of it: kind, path, count and fingerprint.
        left_out: a line on files of the source that are not read; empty where there are none.
    """

    config: TrainConfig
    images: "Pixels"
    labels: Tensor
    classes: int
    names: Mapping[str, int] | None
    shape: tuple[int, int, int]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    source: Source
    description: dict[str, object]
    left_out: str

    def steps(self, batch_size: int) -> int:
        """Batches an epoch; what fills no batch is left out."""
        return len(self.train) // batch_size


class Pixels:
    """Images by index: all of them in memory where they fit, else read by threads.

    Args:
        source: where they are.
        geometry: resize and crop.
        shape: (channel, height, width) that every image must have then.
        count: the first so many images of the source.
        workers: threads.
    """

    def __init__(
        self,
        source: Source,
        geometry: Geometry,
        shape: tuple[int, int, int],
        count: int,
        workers: int,
    ) -> None:
        self._source, self._geometry, self._shape = source, geometry, shape
        self._pool = ThreadPoolExecutor(workers)
        self._ahead: tuple[bytes, list[Future[Tensor]]] | None = None
        self._levels: Tensor | None = None
        if count * int(np.prod(shape)) <= IN_MEMORY or not source.random_access:
            self._levels = self._all(count)

    def take(self, indices: Sequence[int]) -> Tensor:
        """Return images: (batch, channel, height, width), uint8."""
        if self._levels is not None:
            return self._levels[torch.as_tensor(np.asarray(indices, np.int64))]
        ahead, self._ahead = self._ahead, None
        waiting = ahead[1] if ahead and ahead[0] == _key(indices) else self._submit(indices)
        return torch.stack([future.result() for future in waiting])

    def expect(self, indices: Sequence[int]) -> None:
        """Start reading what the next `take` will ask for."""
        if self._levels is None:
            self._ahead = (_key(indices), self._submit(indices))

    def _submit(self, indices: Sequence[int]) -> list[Future[Tensor]]:
        return [self._pool.submit(self._read, int(index)) for index in indices]

    def _read(self, index: int) -> Tensor:
        where = self._source.where(index)
        image = prepare(self._source.read(index), self._geometry, self._shape, where)
        return torch.from_numpy(image.transpose(2, 0, 1).copy())

    def _all(self, count: int) -> Tensor:
        levels = torch.empty(count, *self._shape, dtype=torch.uint8)
        read = self._pool.map if self._source.random_access else map
        for index, image in enumerate(read(self._read, range(count))):
            levels[index] = image
        return levels


def _key(indices: Sequence[int]) -> bytes:
    return np.asarray(indices, np.int64).tobytes()


def load_data(config: TrainConfig) -> TrainData:
    """Return the source of a run, checked and split.

    Raises:
        DataError: it cannot be read, has no labels, fewer than two classes, or too few images.
    """
    source = open_source(config.source)
    check_outside(Path(config.output), source)
    count = len(source) if config.limit is None else min(config.limit, len(source))
    if not source.labelled:
        raise DataError(f"{config.source}: expected a source with labels, got images alone")
    classes = _count(source, config.classes)
    if classes < 2:
        raise DataError(f"{config.source}: expected at least 2 classes, got {classes}")
    meaning = class_map(source, classes, config.classes, config.class_order)
    labels = source_labels(source, meaning, classes)[:count]
    named = meaning.given or {name: number for number, name in (meaning.names or {}).items()}
    geometry = Geometry(config.resize, config.crop)
    first = geometry.apply(source.read(0), source.where(0))
    shape = (first.shape[2], first.shape[0], first.shape[1])
    config = choose(config, count, shape)
    if count - config.validation < config.batch_size and config.epochs:
        raise DataError(
            f"{config.source}: expected at least one batch of {config.batch_size} besides "
            f"{config.validation} images for validation, got {count} images"
        )
    held = min(config.validation, count)
    mixed = permutation(config.seed, _VALIDATION, 0, count)
    return TrainData(
        config,
        Pixels(source, geometry, shape, count, config.workers),
        torch.from_numpy(labels),
        classes,
        named or None,
        shape,
        np.sort(mixed[held:]),
        mixed[:held],
        source,
        {**source.describe(), "used": count},
        str(source.left_out) if source.left_out is not None and source.left_out.count else "",
    )


def _count(source: Source, classes: Classes) -> int:
    if classes is not None:
        return 1 + max(read_classes(classes).values(), default=-1)
    if source.classes:
        return len(source.classes)
    labels = (source.label(index) for index in range(len(source)))
    return 1 + max(-1 if label is None else label for label in labels)


def epoch_order(data: TrainData, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the training part's indices in the order of an epoch."""
    return data.train[permutation(seed, _ORDER, epoch, len(data.train))]


def permutation(seed: int, purpose: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return 0 ... count - 1 in an order that depends on seed, purpose and epoch alone."""
    key, counter = np.array([seed, purpose], np.uint64), np.array([0, 0, 0, epoch], np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return generator.permutation(count).astype(np.int64)
