"""Conversion between arrays of other libraries and torch tensors. Experimental on CUDA.

Tensors are checked on their device. A tensor that fails is copied to the host, where the code for
numpy arrays raises the error.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from jataug.attack.finalize import from_levels
from jataug.errors import DataError

from ..inputs import as_images, as_labels
from .devices import is_on_cuda

__all__ = ["as_tensor", "library_of", "on_host", "read_images", "read_labels"]

_FLOATS = (torch.float16, torch.float32, torch.float64)
"""The torch types that numpy has too."""


def read_images(images: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor | None]:
    """Return images as contiguous float32 in [0, 1], and their 8-bit levels or None.

    Args:
        images: see Session.attack.
        shape: (channel, height, width) of the model.

    Raises:
        DataError: see jataug.runtime.inputs.as_images.
    """
    channel, height, width = shape
    if images.dtype == torch.uint8 and tuple(images.shape[1:]) == (height, width, channel):
        return from_levels(images), images
    if images.dtype not in _FLOATS or tuple(images.shape[1:]) != shape:
        as_images(_array(images, "images"), shape)
    pixels = images.to(torch.float32, memory_format=torch.contiguous_format)
    if bool(((pixels < 0) | ~(pixels <= 1)).any()):
        as_images(_array(pixels, "images"), shape)
    return pixels, None


def read_labels(value: Any, name: str, like: Tensor, classes: int) -> Tensor:
    """Return a checked copy of labels, (batch,), int64, on the device of `like`.

    `like` has one row per label.

    Raises:
        DataError: see jataug.runtime.inputs.as_labels.
    """
    count = len(like)
    if not isinstance(value, Tensor) and not is_on_cuda(value):
        return torch.from_numpy(as_labels(value, count, classes, name)).to(like.device)
    given = as_tensor(value, name)
    others = given.is_floating_point() or given.is_complex() or given.dtype == torch.bool
    if others or given.shape != (count,):
        as_labels(_array(given, name), count, classes, name)
    whole = given.to(like.device, torch.int64, copy=True)
    if bool(((whole < 0) | (whole >= classes)).any()):
        as_labels(_array(given, name), count, classes, name)
    return whole


def on_host(value: Any) -> Any:
    """Return an argument with one number per image as something that numpy can read."""
    return as_tensor(value, "argument").cpu() if is_on_cuda(value) else value


def _array(tensor: Tensor, name: str) -> Any:
    try:
        return tensor.cpu().numpy()
    except TypeError:
        raise DataError(
            f"{name}: numpy has no type {tensor.dtype}; convert it with .float()"
        ) from None


def as_tensor(array: Any, name: str) -> Tensor:
    """Return an array as a tensor that shares its memory, without a gradient.

    Raises:
        DataError: torch cannot read it.
    """
    if isinstance(array, Tensor):
        # A subclass, such as torchvision's, would turn all results into that subclass.
        return array.detach().as_subclass(Tensor)
    try:
        return from_dlpack(array)
    except (AssertionError, BufferError, RuntimeError, TypeError, ValueError) as error:
        # A torch without CUDA raises AssertionError.
        said = str(error).partition("\n")[0]
        raise DataError(
            f"{name}: expected an array that torch {torch.__version__} can read, got "
            f"{type(array).__name__}: {said}"
        ) from None


def library_of(images: Any) -> Callable[[Tensor], Any]:
    """Return a function from a tensor to an array of the images' library with the same memory.

    Raises:
        DataError: the library has no from_dlpack.
    """
    if isinstance(images, Tensor):
        return lambda tensor: tensor
    namespace = getattr(images, "__array_namespace__", None)
    root = type(images).__module__.partition(".")[0]
    library: Any = namespace() if namespace else sys.modules.get(root)
    if not hasattr(library, "from_dlpack"):
        raise DataError(
            "images: expected a torch tensor or a cupy array on CUDA, got "
            f"{type(images).__name__}, whose library has no from_dlpack; make a torch tensor of it"
        )

    def back(tensor: Tensor) -> Any:
        if tensor.dtype == torch.bool:  # some libraries cannot import boolean tensors
            return library.from_dlpack(tensor.to(torch.uint8)) != 0
        return library.from_dlpack(tensor)

    return back
