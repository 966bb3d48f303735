"""From an image file to 8-bit pixels; what cannot be turned into them without a guess is refused by
name.
"""

import io
import os
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ...errors import DataError

__all__ = ["MAX_PIXELS", "decode", "decode_bytes"]

MAX_PIXELS = 89_478_485
"""Larger images are refused: a file of a few kilobytes can claim to be any size. (A quarter of a
GiB of RGB.)
"""

_FORMATS = ("PNG", "JPEG", "WEBP")
_PNG = b"\x89PNG\r\n\x1a\n"


def decode(file: IO[bytes], where: str) -> NDArray[np.uint8]:
    """Return the image in an open PNG, JPEG or WebP file, upright: (height, width, 1 or 3), uint8.

    The EXIF orientation is applied, a palette becomes RGB, an alpha channel that is opaque
    everywhere is dropped.

    Args:
        file: open for reading, seekable.
        where: the name of the image in error messages.

    Raises:
        DataError: the image is empty, damaged, animated, 16-bit, CMYK, partly transparent or too
            large.
    """
    try:
        _check_header(file, where)
        with Image.open(file, formats=_FORMATS) as image:
            return _pixels(image, where)
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"{where}: expected a PNG, JPEG or WebP image, got something else; remove or convert it"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(_too_large(where)) from None
    except Exception as error:  # Pillow's readers raise whatever damaged bytes lead them into
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{where}: expected a whole image, got a damaged or truncated one ({reason}); "
            "remove it or copy it again"
        ) from None


def decode_bytes(data: bytes, where: str) -> NDArray[np.uint8]:
    """Return the image in the bytes of a file; see decode."""
    return decode(io.BytesIO(data), where)


def _too_large(where: str) -> str:
    return f"{where}: expected at most {MAX_PIXELS} pixels, got more; scale the image down"


def _check_header(file: IO[bytes], where: str) -> None:
    head = file.read(25)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size == 0:
        raise DataError(
            f"{where}: expected an image, got an empty file; remove it or copy it again"
        )
    # Pillow reads 16-bit RGB as 8-bit without a word; byte 24 of a PNG is its bit depth.
    if head.startswith(_PNG) and head[24:25] == b"\x10":
        raise DataError(f"{where}: expected an 8-bit image, got a 16-bit PNG; convert it to 8 bits")


def _pixels(image: Image.Image, where: str) -> NDArray[np.uint8]:
    if image.width * image.height > MAX_PIXELS:
        raise DataError(_too_large(where))
    frames = getattr(image, "n_frames", 1)
    # MPO is what many phones write: a JPEG photo, then its thumbnail or the other eye.
    if frames > 1 and image.format != "MPO":
        raise DataError(
            f"{where}: expected one image, got an animation of {frames} frames; save one frame"
        )
    image.load()
    upright = _plain(ImageOps.exif_transpose(image), where)
    return np.array(upright).reshape(upright.height, upright.width, -1)


def _plain(image: Image.Image, where: str) -> Image.Image:
    """Return the image in mode L or RGB."""
    if image.mode == "1":
        image = image.convert("L")
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        return _opaque(image, where)
    if image.mode == "P":
        return image.convert("RGB")
    if image.mode not in ("L", "RGB"):
        what = "a 16- or 32-bit image" if image.mode[0] in "IF" else f"a {image.mode} image"
        raise DataError(f"{where}: expected 8-bit grey or RGB, got {what}; convert it to 8-bit RGB")
    return image


def _opaque(image: Image.Image, where: str) -> Image.Image:
    grey = image.mode in ("L", "LA")
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema()[0] != 255:
        raise DataError(
            f"{where}: expected an opaque image, got one with transparent pixels; flatten it"
        )
    return image.convert("RGB").getchannel(0) if grey else image.convert("RGB")
