"""Data sets and live augmentation for grain: map-style data sets, jax and numpy arrays.

Images are channels last: (height, width, channel), uint8. jax itself is imported only by who hands
over its arrays: workers never start a backend.
"""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from ..config import AttackConfig
from ..errors import MissingExtra
from .augmenter import Attack, Augmenter
from .check import Verify
from .joint import as_config
from .labels import Convention
from .numpy import RandomJoint as _RandomJoint
from .samples import Clean, Samples, open_mixed, opened

try:
    import grain
except ImportError as error:
    raise MissingExtra(
        "jataug.loaders.grain needs grain, which is not installed: pip install 'jataug[grain]'"
    ) from error

__all__ = ["ArrayAugmenter", "RandomJoint", "SampleDataset", "augment", "dataset", "mixed"]


class SampleDataset(grain.MapDataset[dict[str, Any]]):  # type: ignore[misc]
    """{"image", "label", "index", "epoch"} by position, and, in a mixed one, "adversarial".

    It starts a pipeline: shuffle, slices and repeat pass on which epoch a position lies in.
    """

    def __init__(self, samples: Samples) -> None:
        super().__init__()
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __str__(self) -> str:
        return f"SampleDataset({len(self)} samples)"

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        epoch, position = divmod(int(index), len(self))
        return self._samples.sample(position, max(0, epoch))


class ArrayAugmenter(Augmenter):
    """The augmenter of jax and numpy arrays, channels last; in a pipeline after batch()."""

    def __call__(
        self, images: Any, labels: Any = None, indices: Any = None, *, epoch: Any = 0
    ) -> Any:
        """Return the images, or the batch {"image": ..., ...}, augmented; see Augmenter.run."""
        if isinstance(images, Mapping):
            return self.batch(images)
        return self.images(images, labels, indices, epoch)

    def images(self, images: Any, labels: Any = None, indices: Any = None, epoch: Any = 0) -> Any:
        """Return augmented images, of jax on their device, or of numpy."""
        array = images if isinstance(images, np.ndarray) else np.asarray(images)
        moved = self.run(array, labels, indices, epoch)
        return moved if isinstance(images, np.ndarray) else _on_device(moved, images)


class RandomJoint(grain.transforms.RandomMap):  # type: ignore[misc]
    """A random flow and perturbation of one image inside the budgets of `config`, for random_map().

    It takes an image (height, width[, channel]), uint8 or floating in [0, 1], or {"image": ...};
    its draws come from the generator that grain gives.
    """

    def __init__(self, config: AttackConfig | Mapping[str, Any]) -> None:
        self.config = as_config(config)
        self._transform = _RandomJoint(self.config)

    def random_map(self, element: Any, rng: np.random.Generator) -> Any:
        """Return the element, its image replaced."""
        if isinstance(element, Mapping):
            return {**element, "image": self._transform(np.asarray(element["image"]), rng)}
        return self._transform(np.asarray(element), rng)


def dataset(
    path: str | PathLike[str],
    *,
    smoothing: float | None = None,
    convention: Convention = "authors",
    verify: Verify = "quick",
) -> SampleDataset:
    """Return a generated data set as a grain.MapDataset.

    Args:
        path: of the data set, of any format.
        smoothing: of the labels, which are then (classes,), float32; None keeps them integers.
        convention: of the smoothing: "authors" or "torch", see jataug.loaders.labels.Smoothing.
        verify: "quick", "read" or "full", see docs/loaders.md.

    Raises:
        DataError: there is no finished data set, or an option is outside its domain.
        CheckError: the data set does not verify.
    """
    return SampleDataset(opened(path, smoothing, convention, verify))


def mixed(
    clean: Clean,
    adversarial: str | PathLike[str],
    ratio: float = 0.5,
    seed: int = 0,
    *,
    smoothing: float | None = None,
    convention: Convention = "authors",
    verify: Verify = "quick",
) -> SampleDataset:
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
    return SampleDataset(open_mixed(clean, samples, ratio, seed))


def augment(attack: Attack, **options: Any) -> ArrayAugmenter:
    """Return a function of batches: augmenter(images, labels, indices, epoch=0), or of
    {"image": ..., "label": ..., "index": ..., "epoch": ...}. Options are those of Augmenter.
    """
    return ArrayAugmenter(attack, **options)


def _on_device(array: np.ndarray[Any, Any], like: Any) -> Any:
    import jax

    # Over the same memory on a CPU, where its alignment allows.
    return jax.device_put(array, like.sharding, may_alias=True)
