"""Samples as every loader gives them: image, label, index and epoch, by position."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import streams
from ..data import Source, open_source
from ..data.source import NO_LABEL
from ..dataset.verification.comparison import Original
from ..errors import DataError
from ..smoothing import Convention, Smoothing, check_fraction
from .check import Verify
from .origin import check_count, check_origin
from .stored import StoredSet

__all__ = [
    "Clean",
    "Mixed",
    "Sample",
    "Samples",
    "Stored",
    "is_adversarial",
    "open_mixed",
    "opened",
]

Sample = dict[str, Any]
"""image: (height, width, channel), uint8. label: int64, or (classes,), float32. index: its position
in the source, int64. epoch: int64. Mixed ones also adversarial: bool.
"""

Clean = str | PathLike[str] | Source | Sequence[Any]
"""The source of a data set: its path, the opened source, or anything with a length whose i-th item
is (image, label), {"image": ..., "label": ...} or the image alone; images uint8 arrays or PIL.
"""


class Samples(Protocol):
    """A sequence of samples, the same ones for the same epoch."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channel)."""

    @property
    def classes(self) -> int | None:
        """The length of the smoothed labels; None where labels are hard."""

    def sample(self, position: int, epoch: int = 0) -> Sample:
        """Return one sample.

        Raises:
            DataError: it cannot be read; the message names it.
        """


class Stored:
    """The samples of a generated data set."""

    def __init__(self, stored: StoredSet, smoothing: Smoothing | None) -> None:
        self.stored, self._smoothing = stored, smoothing
        self.shape = stored.shape
        self.classes = None if smoothing is None else stored.classes

    def __len__(self) -> int:
        return len(self.stored)

    def sample(self, position: int, epoch: int = 0) -> Sample:
        return self.with_image(self.stored.image(position), position, epoch)

    def given_labels(self) -> NDArray[Any]:
        """Return what each class is given as: (classes,), int64, or (classes, classes), float32."""
        classes = self.stored.classes
        if self._smoothing is None:
            return np.arange(classes)
        return self._smoothing.table(classes)

    def with_image(self, image: NDArray[np.uint8], position: int, epoch: int) -> Sample:
        """Return the sample of a position, with this image."""
        label: Any = self.stored.labels[position]
        if self._smoothing is not None:
            label = self._smoothing.of(int(label), self.stored.classes)
        index = self.stored.indices[position]
        return {"image": image, "label": label, "index": index, "epoch": np.int64(epoch)}


class Mixed:
    """Adversarial samples, each replaced by its clean image where the draw says so.

    Args:
        clean: the images by record; see Partner and Original.
        samples: the adversarial ones.
        ratio: how many are adversarial, on average.
        seed: of the draws.
    """

    def __init__(
        self, clean: "Original | Partner", samples: Stored, ratio: float, seed: int
    ) -> None:
        check_fraction("ratio", ratio)
        self._clean, self._samples, self._ratio, self._seed = clean, samples, ratio, seed
        self.shape, self.classes = samples.shape, samples.classes
        is_adversarial(seed, 0, 0, ratio)  # refuses a seed that no stream has

    def __len__(self) -> int:
        return len(self._samples)

    def sample(self, position: int, epoch: int = 0) -> Sample:
        stored = self._samples.stored
        chosen = is_adversarial(self._seed, epoch, int(stored.indices[position]), self._ratio)
        if chosen:
            sample = self._samples.sample(position, epoch)
        else:
            sample = self._samples.with_image(self._partner(stored, position), position, epoch)
        return {**sample, "adversarial": np.bool_(chosen)}

    def _partner(self, stored: StoredSet, position: int) -> NDArray[np.uint8]:
        try:
            return self._clean.image(stored.record(position))
        except DataError as error:
            raise DataError(f"clean image of {stored.where(position)}: {error}") from None


class Partner:
    """The clean images of a data set, in a sequence that the user already has.

    Args:
        items: as long as the source.
        stored: the data set that was made from them.
    """

    def __init__(self, items: Sequence[Any], stored: StoredSet) -> None:
        plan = stored.plan
        self._items, self._shape = items, stored.shape
        # With class_labels the source's numbers are not the model's, and predictions are no labels.
        self._labelled = plan["labels"] == "source" and not plan["class_labels"]

    def image(self, record: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Return the clean image of a record: (height, width, channel), uint8.

        Raises:
            DataError: the item is no 8-bit image of that size, or has another label.
        """
        image, label = _parts(self._items[record["index"]])
        known = self._labelled and label is not None and int(label) != NO_LABEL
        if known and int(label) != record["label"]:
            raise DataError(
                f"expected the label {record['label']} of the data set, got {int(label)}: "
                "another source, or another order"
            )
        return as_levels(image, self._shape)


def opened(
    path: str | PathLike[str],
    smoothing: float | None = None,
    convention: Convention = "authors",
    verify: Verify = "quick",
) -> Stored:
    """Return the samples of a data set.

    Args:
        path: of the data set.
        smoothing: of the labels; None keeps them hard.
        convention: of the smoothing, see Smoothing.
        verify: see StoredSet.
    """
    held = None if smoothing is None else Smoothing(smoothing, convention)
    return Stored(StoredSet(path, verify), held)


def open_mixed(clean: Clean, adversarial: Stored, ratio: float, seed: int) -> Mixed:
    """Return clean and adversarial samples, joined by index.

    Raises:
        DataError: the ratio is outside [0, 1], or `clean` is not what the data set was made from.
    """
    check_fraction("ratio", ratio)
    stored = adversarial.stored
    if isinstance(clean, (str, PathLike)):
        if Path(clean).resolve() == stored.root.resolve():
            raise DataError(f"clean: expected the source of {stored.root}, got the data set itself")
        clean = open_source(clean)
    indexed = isinstance(clean, Source) or hasattr(clean, "__getitem__")
    if not indexed or not hasattr(clean, "__len__"):
        raise DataError(
            "clean: expected the path of the source or a sequence of its samples, got "
            f"{type(clean).__name__}"
        )
    check_count(len(clean), stored)
    held = Original(clean, stored.plan) if isinstance(clean, Source) else Partner(clean, stored)
    check_origin(held, stored)
    return Mixed(held, adversarial, ratio, seed)


def is_adversarial(seed: int, epoch: int, index: int, ratio: float) -> bool:
    """Return whether a sample is adversarial in an epoch: u < ratio, with u from its own stream.

    A sample that is adversarial at one ratio is so at every larger one.
    """
    word = int(streams.words(seed, index, streams.MIX, 1, epoch=epoch)[0])
    return (word >> 11) * 2.0**-53 < ratio


def as_levels(image: Any, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return an 8-bit image, channels first or last, as (height, width, channel).

    Raises:
        DataError: another type or size.
    """
    array = np.asarray(image)
    height, width, channel = shape
    if array.dtype == np.uint8:
        if array.shape == shape or (channel == 1 and array.shape == (height, width)):
            return array.reshape(shape)
        if array.shape == (channel, height, width):
            return np.ascontiguousarray(array.transpose(1, 2, 0))
    raise DataError(
        f"expected an image uint8 {shape} as it was attacked, before any transform, got "
        f"{array.dtype} {array.shape}"
    )


def _parts(item: Any) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        return item.get("image"), item.get("label")
    if isinstance(item, (tuple, list)):
        return item[0], item[1] if len(item) > 1 else None
    return item, None
