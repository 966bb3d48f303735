"""Data sets and live augmentation for Hugging Face datasets: functions for set_transform and map.

Images are channels last: (height, width, channel), uint8.
"""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

import numpy as np

from ..config import AttackConfig
from ..errors import DataError, MissingExtra
from .augmenter import Attack, Augmenter
from .check import Verify
from .labels import Convention
from .numpy import RandomJoint as _RandomJoint
from .samples import Clean, Samples, open_mixed, opened

try:
    from datasets.arrow_dataset import Dataset
except ImportError as error:
    raise MissingExtra(
        "jataug.loaders.datasets needs datasets, which is not installed: pip install 'jataug[hf]'"
    ) from error

__all__ = ["BatchAugmenter", "RandomJoint", "augment", "dataset", "mixed"]

Batch = Mapping[str, Any]
Transform = Callable[[dict[str, Any]], Any]


class _Reader:
    """Reads the samples of the rows that a data set is asked for, and hands them on."""

    def __init__(self, samples: Samples, transform: Transform | None) -> None:
        self._samples, self._transform = samples, transform

    def __call__(self, rows: Batch) -> Any:
        if "position" not in rows:  # another column alone was asked for
            return dict(rows)
        places = (divmod(int(place), len(self._samples)) for place in rows["position"])
        found = [self._samples.sample(position, epoch) for epoch, position in places]
        batch = {name: [sample[name] for sample in found] for name in found[0]} if found else {}
        plain = {n: [v.item() for v in vs] if vs[0].ndim == 0 else vs for n, vs in batch.items()}
        return plain if self._transform is None else self._transform(plain)


class BatchAugmenter(Augmenter):
    """The augmenter of batches as Hugging Face has them: lists of images, arrays or PIL."""

    def __call__(
        self, images: Any, labels: Any = None, indices: Any = None, *, epoch: Any = 0
    ) -> Any:
        """Return the images, or the batch {"image": ..., ...}, augmented; see Augmenter.run."""
        if isinstance(images, Mapping):
            return self.batch(images)
        return self.images(images, labels, indices, epoch)

    def images(self, images: Any, labels: Any = None, indices: Any = None, epoch: Any = 0) -> Any:
        """Return a list of augmented images for a list, an array for an array."""
        if isinstance(images, np.ndarray):
            return self.run(images, labels, indices, epoch)
        shapes = {np.shape(image) for image in images}
        if len(shapes) > 1:
            raise DataError(f"images: expected one size, got {sorted(shapes)}; resize before")
        held = np.stack([np.asarray(image) for image in images])
        moved = self.run(held if held.ndim == 4 else held[..., None], labels, indices, epoch)
        return list(moved.reshape(held.shape))


class RandomJoint:
    """A random flow and perturbation of each image of a batch, for set_transform() and map().

    Images are (height, width[, channel]), arrays or PIL, of any sizes.

    Args:
        config: the budgets.
        seed: of the draws, other ones in each worker process; None draws other ones each time.
    """

    def __init__(self, config: AttackConfig | Mapping[str, Any], seed: int | None = None) -> None:
        self._transform, self._seed = _RandomJoint(config), seed
        self.config = self._transform.config
        self._process: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {n: v for n, v in self.__dict__.items() if n != "_rng"} | {"_process": None}

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """Return a batch {"image": [...], ...}, its images replaced."""
        if self._process != os.getpid():
            self._process = os.getpid()
            # Processes that multiprocessing starts are numbered: workers differ, reproducibly.
            number = multiprocessing.current_process()._identity
            seed = None if self._seed is None else [self._seed, *number]
            self._rng = np.random.default_rng(seed)
        images = [self._transform(np.asarray(image), self._rng) for image in batch["image"]]
        return {**batch, "image": images}


def dataset(
    path: str | PathLike[str],
    *,
    smoothing: float | None = None,
    convention: Convention = "authors",
    verify: Verify = "quick",
    epoch: int = 0,
    epochs: int = 1,
    transform: Transform | None = None,
) -> Dataset:
    """Return a generated data set as a datasets.Dataset; rows are read when they are asked for.

    Args:
        path: of the data set, of any format.
        smoothing: of the labels, which are then (classes,), float32; None keeps them integers.
        convention: of the smoothing: "authors" or "torch", see jataug.loaders.labels.Smoothing.
        verify: "quick", "read" or "full", see docs/loaders.md.
        epoch: the first one.
        epochs: how many follow each other in the table: `select(range(k * n, (k + 1) * n))` is one.
        transform: of each batch {"image": [...], "label": [...], "index": [...], "epoch": [...]},
            in the place of set_transform, which reading takes.

    Raises:
        DataError: there is no finished data set, or an option is outside its domain.
        CheckError: the data set does not verify.
    """
    samples = opened(path, smoothing, convention, verify)
    return _rows(samples, epoch, epochs, transform)


def mixed(
    clean: Clean,
    adversarial: str | PathLike[str],
    ratio: float = 0.5,
    seed: int = 0,
    *,
    smoothing: float | None = None,
    convention: Convention = "authors",
    verify: Verify = "quick",
    epoch: int = 0,
    epochs: int = 1,
    transform: Transform | None = None,
) -> Dataset:
    """Return clean and adversarial samples joined by index: each one is adversarial in an epoch
    with probability `ratio`, drawn from (seed, epoch, index).

    Args:
        clean: the source of the data set: its path, or a sequence of its 8-bit samples.
        adversarial: the path of the data set.
        ratio: in [0, 1].
        seed: of the draws.
        smoothing: see dataset.
        convention: likewise.
        verify: likewise.
        epoch: likewise.
        epochs: likewise.
        transform: likewise.

    Raises:
        DataError: as for dataset; the ratio is outside [0, 1]; another source.
        CheckError: the data set does not verify.
    """
    samples = opened(adversarial, smoothing, convention, verify)
    joined = open_mixed(clean, samples, ratio, seed)
    return _rows(joined, epoch, epochs, transform)


def augment(attack: Attack, **options: Any) -> BatchAugmenter:
    """Return a function of batches: augmenter(images, labels, indices, epoch=0), or of
    {"image": ..., "label": ..., "index": ..., "epoch": ...}. Options are those of Augmenter.
    """
    return BatchAugmenter(attack, **options)


def _rows(samples: Samples, epoch: int, epochs: int, transform: Transform | None) -> Dataset:
    """Return a table of positions in memory: nothing is copied, nothing goes to a cache."""
    if epoch < 0 or epochs < 1:
        raise DataError(f"epoch, epochs: expected >= 0 and >= 1, got {epoch} and {epochs}")
    count = len(samples)
    table = Dataset.from_dict({"position": np.arange(epoch * count, (epoch + epochs) * count)})
    read: Dataset = table.with_transform(_Reader(samples, transform))
    return read
