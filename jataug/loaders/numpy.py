"""Data sets and live augmentation in numpy, for every loader that has no module of its own.

Images are channels last: (height, width, channel), uint8.
"""

from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import AttackConfig
from ..errors import DataError
from .augmenter import Attack, Augmenter
from .check import Verify
from .joint import as_config, check_floats, drawn
from .labels import Convention
from .samples import Clean, Sample, Samples, open_mixed, opened

__all__ = ["ArrayAugmenter", "ArrayDataset", "RandomJoint", "augment", "dataset", "mixed"]


class ArrayDataset:
    """Samples by position: {"image", "label", "index", "epoch"} and, in a mixed one, "adversarial".

    Attributes:
        epoch: of the samples that [] gives.
    """

    def __init__(self, samples: Samples, epoch: int = 0) -> None:
        self._samples, self.epoch = samples, epoch

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, position: int) -> Sample:
        if not -len(self) <= position < len(self):
            raise IndexError(f"expected a position in [0, {len(self)}), got {position}")
        return self._samples.sample(int(position) % len(self), self.epoch)

    def batches(
        self,
        size: int,
        *,
        epoch: int = 0,
        shuffle: int | None = None,
        shard: tuple[int, int] = (0, 1),
        drop_last: bool = False,
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield batches: the arrays of each sample, stacked.

        Args:
            size: samples a batch.
            epoch: of the samples, and of the order.
            shuffle: the seed of the order; None keeps that of the source.
            shard: (i, n): every n-th sample from the i-th, for host i of n.
            drop_last: leave out a last batch that is smaller.

        Raises:
            DataError: an option is outside its domain, or a sample cannot be read.
        """
        order = self._order(size, epoch, shuffle, shard)
        stop = len(order) - len(order) % size if drop_last else len(order)
        return (
            stacked([self._samples.sample(int(k), epoch) for k in order[start : start + size]])
            for start in range(0, stop, size)
        )

    def _order(
        self, size: int, epoch: int, shuffle: int | None, shard: tuple[int, int]
    ) -> NDArray[np.int64]:
        if size < 1:
            raise DataError(f"size: expected an integer >= 1, got {size}")
        part, parts = shard
        if not 0 <= part < parts:
            raise DataError(f"shard: expected (i, n) with 0 <= i < n, got {shard}")
        order = np.arange(len(self))
        if shuffle is not None:
            order = np.random.default_rng([shuffle, epoch]).permutation(order)
        return order[part::parts]


class ArrayAugmenter(Augmenter):
    """The augmenter of numpy arrays, channels last, and of anything that speaks DLPack on a CPU."""

    def __call__(
        self, images: Any, labels: Any = None, indices: Any = None, *, epoch: Any = 0
    ) -> Any:
        """Return the images, or the batch {"image": ..., ...}, augmented; see Augmenter.run."""
        if isinstance(images, Mapping):
            return self.batch(images)
        return self.images(images, labels, indices, epoch)

    def images(self, images: Any, labels: Any = None, indices: Any = None, epoch: Any = 0) -> Any:
        """Return augmented images, numpy."""
        return self.run(np.asarray(images), labels, indices, epoch)


class RandomJoint:
    """A random flow and perturbation of one image inside the budgets of `config`.

    Images are (height, width[, channel]), uint8 or floating in [0, 1].
    """

    def __init__(self, config: AttackConfig | Mapping[str, Any]) -> None:
        self.config = as_config(config)

    def __call__(self, image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Return an image like `image`, its draws taken from `rng`.

        Raises:
            DataError: another type or shape, or floats outside [0, 1].
        """
        if image.ndim not in (2, 3) or (image.dtype != np.uint8 and image.dtype.kind != "f"):
            raise DataError(
                "image: expected uint8 or floating (height, width[, channel]), got "
                f"{image.dtype} {image.shape}"
            )
        pixels = image.reshape(1, *image.shape[:2], -1)
        if image.dtype == np.uint8:
            levels: NDArray[Any] = drawn(pixels, self.config, rng)[0]
            return levels.reshape(image.shape)
        check_floats(pixels, "image")
        planes = drawn(pixels.transpose(0, 3, 1, 2), self.config, rng)
        moved = planes[0].transpose(1, 2, 0).reshape(image.shape)
        return np.ascontiguousarray(moved, image.dtype)


def dataset(
    path: str | PathLike[str],
    *,
    smoothing: float | None = None,
    convention: Convention = "authors",
    verify: Verify = "quick",
) -> ArrayDataset:
    """Return a generated data set as a sequence, with an iterator over batches.

    Args:
        path: of the data set, of any format.
        smoothing: of the labels, which are then (classes,), float32; None keeps them integers.
        convention: of the smoothing: "authors" or "torch", see jataug.loaders.labels.Smoothing.
        verify: "quick", "read" or "full", see docs/loaders.md.

    Raises:
        DataError: there is no finished data set, or an option is outside its domain.
        CheckError: the data set does not verify.
    """
    return ArrayDataset(opened(path, smoothing, convention, verify))


def mixed(
    clean: Clean,
    adversarial: str | PathLike[str],
    ratio: float = 0.5,
    seed: int = 0,
    *,
    smoothing: float | None = None,
    convention: Convention = "authors",
    verify: Verify = "quick",
) -> ArrayDataset:
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

    Raises:
        DataError: as for dataset; the ratio is outside [0, 1]; another source.
        CheckError: the data set does not verify.
    """
    samples = opened(adversarial, smoothing, convention, verify)
    return ArrayDataset(open_mixed(clean, samples, ratio, seed))


def augment(attack: Attack, **options: Any) -> ArrayAugmenter:
    """Return a function of batches: augmenter(images, labels, indices, epoch=0), or of
    {"image": ..., "label": ..., "index": ..., "epoch": ...}. Options are those of Augmenter.
    """
    return ArrayAugmenter(attack, **options)


def stacked(samples: list[Sample]) -> dict[str, NDArray[Any]]:
    """Return one array for each name of the samples."""
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
