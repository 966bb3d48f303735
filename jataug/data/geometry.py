"""Resize and centre crop, which give an image the size that the model takes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..checks import check_integer
from ..errors import DataError
from .readers.decode import MAX_PIXELS

__all__ = ["Geometry", "prepare"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Geometry:
    """The sizes of a resize and a centre crop, in pixels. Both are optional.

    Args:
        resize: the length of the shorter side, the longer one in proportion (bilinear,
            antialiased).
        crop: the side of the square, or (height, width) of the rectangle, cut out of the centre.

    Raises:
        DataError: a size is not a positive integer.
    """

    resize: int | None = None
    crop: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.resize is not None:
            check_integer("resize", self.resize, 1)
        if isinstance(self.crop, tuple | list):
            if len(self.crop) != 2:
                raise DataError(f"crop: expected one size or (height, width), got {self.crop!r}")
            object.__setattr__(self, "crop", tuple(self.crop))
            for size in self.crop:
                check_integer("crop", size, 1)
        elif self.crop is not None:
            check_integer("crop", self.crop, 1)
            # One form, so that equal geometries are equal plans.
            object.__setattr__(self, "crop", (self.crop, self.crop))

    def apply(self, image: Pixels, where: str) -> Pixels:
        """Return the image (height, width, channel), uint8, resized and cropped.

        Raises:
            DataError: the crop is larger than the image.
        """
        if self.resize is not None:
            image = _resize(image, self.resize, where)
        return _cut(image, self.crop, where) if isinstance(self.crop, tuple) else image


def prepare(image: Pixels, geometry: Geometry, shape: tuple[int, int, int], where: str) -> Pixels:
    """Return an image that the model takes: (height, width, channel), uint8. Grey becomes RGB where
    it has to.

    Args:
        image: (height, width, channel), uint8, any size.
        geometry: what to do to its size.
        shape: (channel, height, width) of the model's images.
        where: the name of the image in error messages.

    Raises:
        DataError: the size or the channels are not the model's.
    """
    channel, height, width = shape
    image = geometry.apply(image, where)
    if image.shape[2] == 1 and channel == 3:
        image = np.repeat(image, 3, axis=2)
    if image.shape[2] != channel:
        advice = "; convert it to grey first" if (image.shape[2], channel) == (3, 1) else ""
        raise DataError(f"{where}: expected {channel} channel(s), got {image.shape[2]}{advice}")
    if image.shape[:2] != (height, width):
        raise DataError(
            f"{where}: expected {height}x{width} pixels, got {image.shape[0]}x{image.shape[1]}; "
            f"use {_advice(height, width)}"
        )
    return np.ascontiguousarray(image)


def _advice(height: int, width: int) -> str:
    crop = f"{height}" if height == width else f"{height},{width}"
    return f"--resize {round(max(height, width) * 8 / 7)} --crop {crop}"


def _resize(image: Pixels, shorter: int, where: str) -> Pixels:
    height, width, channel = image.shape
    if channel not in (1, 3):
        raise DataError(f"{where}: expected 1 or 3 channels to resize, got {channel}")
    least = min(height, width)
    size = (shorter * width // least, shorter * height // least)
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(
            f"{where}: resize: expected at most {MAX_PIXELS} pixels, got "
            f"{size[1]}x{size[0]}; use a smaller --resize"
        )
    picture = Image.fromarray(image[:, :, 0] if channel == 1 else image)
    resized = np.array(picture.resize(size, Image.Resampling.BILINEAR))
    return resized.reshape(size[1], size[0], channel)


def _cut(image: Pixels, size: tuple[int, int], where: str) -> Pixels:
    rows, columns = image.shape[0] - size[0], image.shape[1] - size[1]
    if rows < 0 or columns < 0:
        raise DataError(
            f"{where}: expected at least {size[0]}x{size[1]} pixels to crop, "
            f"got {image.shape[0]}x{image.shape[1]}; resize to {max(size)} or more"
        )
    top, left = round(rows / 2), round(columns / 2)
    return image[top : top + size[0], left : left + size[1]]
