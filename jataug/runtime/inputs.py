"""Checks the arguments of a session: images, labels, targets and radii."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jataug.budget import radius_of
from jataug.errors import BudgetError, DataError
from jataug.finalize import from_levels

__all__ = ["Images", "as_images", "as_indices", "as_labels", "as_radii", "check_targets", "padded"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Images:
    """A checked batch of images.

    Attributes:
        pixels: (batch, channel, height, width), float32 in [0, 1].
        eight_bit: whether the images came as uint8; results are then uint8 too.
    """

    pixels: NDArray[np.float32]
    eight_bit: bool

    def __len__(self) -> int:
        return len(self.pixels)


def as_array(value: Any, name: str) -> Array:
    """Return a numpy array, a DLPack array on the CPU or a sequence as a numpy array."""
    if isinstance(value, np.ndarray):
        return value
    try:
        if hasattr(value, "detach"):
            value = value.detach()
        return np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise DataError(
            f"{name}: expected an array on the CPU, got {type(value).__name__}: {error}"
        ) from None


def as_whole(value: Any, name: str) -> Array:
    """Return a value as a numpy array, as `as_array` does. An empty one becomes int64."""
    array = as_array(value, name)
    return array if array.size else array.astype(np.int64)


def as_images(value: Any, shape: tuple[int, int, int]) -> Images:
    """Return checked images.

    Args:
        value: float32 (batch, channel, height, width) in [0, 1], or uint8 (batch, height, width,
            channel).
        shape: (channel, height, width) of the model.

    Raises:
        DataError: the images have another type or another size than the model's, or values that
            are not finite or outside [0, 1].
    """
    array = as_array(value, "images")
    if array.dtype == np.uint8:
        expected = (shape[1], shape[2], shape[0])
        if array.ndim != 4 or array.shape[1:] != expected:
            raise DataError(
                f"images: expected uint8 (batch, height, width, channel) = (n, {expected[0]}, "
                f"{expected[1]}, {expected[2]}), the model's size, got {array.shape}"
            )
        return Images(from_levels(array), True)
    if array.dtype.kind != "f":
        raise DataError(f"images: expected float32 in [0, 1] or uint8, got {array.dtype}")
    if array.ndim != 4 or array.shape[1:] != shape:
        raise DataError(
            f"images: expected float32 (batch, channel, height, width) = (n, {shape[0]}, "
            f"{shape[1]}, {shape[2]}), the model's size, got {array.shape}"
        )
    pixels = np.ascontiguousarray(array, np.float32)
    outside = ~((pixels >= 0) & (pixels <= 1)).all(axis=(1, 2, 3))
    if outside.any():
        raise DataError(
            f"images: expected finite values in [0, 1]; image {int(outside.argmax())} of the "
            "batch has others"
        )
    return Images(pixels, False)


def as_labels(value: Any, count: int, classes: int, name: str = "labels") -> NDArray[np.int64]:
    """Return checked labels: (batch,), int64.

    Raises:
        DataError: the labels are not integers, are not one per image, or are outside [0, classes).
    """
    array = as_whole(value, name)
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise DataError(
            f"{name}: expected {count} integers, one per image, got {array.dtype} {array.shape}"
        )
    wrong = (array < 0) | (array >= classes)
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(
            f"{name}: expected integers in [0, {classes}), got {array[at]} for image {at}"
        )
    return array.astype(np.int64)


def check_targets(targets: Array, labels: Array) -> None:
    """Check that no target equals its label.

    Raises:
        DataError: a target is the label itself.
    """
    same = targets == labels
    if same.any():
        at = int(same.argmax())
        raise DataError(
            f"targets: expected another class than the label, got {targets[at]} for image {at}"
        )


def as_indices(value: Any, count: int) -> Sequence[int]:
    """Return checked sample indices, one per image. Default: 0 to count - 1.

    Raises:
        DataError: the indices are not integers >= 0, or not one per image.
    """
    if value is None:
        return range(count)
    array = as_whole(value, "indices")
    if array.dtype.kind not in "iu" or array.shape != (count,) or (array < 0).any():
        raise DataError(
            f"indices: expected {count} integers >= 0, one per image, got {array.dtype} "
            f"{array.shape}"
        )
    return [int(i) for i in array]


def as_radii(value: Any, count: int, default: float, name: str) -> NDArray[np.float32]:
    """Return one radius per image: (batch,), float32.

    Raises:
        BudgetError: a radius is not a finite number >= 0, or there is not one per image.
    """
    if value is None:
        return np.full(count, default, np.float32)
    if isinstance(value, (int, float, str)):
        return np.full(count, radius_of(value, f"{name} radius"), np.float32)
    array = as_array(value, f"{name} radius")
    if array.dtype.kind not in "fiu" or array.shape not in ((), (count,)):
        raise BudgetError(
            f"{name} radius: expected a number or {count} numbers, one per image, got "
            f"{array.dtype} {array.shape}"
        )
    with np.errstate(over="ignore"):
        radii = np.broadcast_to(array, (count,)).astype(np.float32)
    if not (np.isfinite(radii) & (radii >= 0)).all():
        raise BudgetError(f"{name} radius: expected finite numbers >= 0")
    return radii


def padded(array: Array, size: int, fill: int = 0) -> Array:
    """Return an array of `size` rows, with missing rows filled with `fill`."""
    if len(array) == size:
        return array
    return np.concatenate(
        [array, np.full((size - len(array), *array.shape[1:]), fill, array.dtype)]
    )
