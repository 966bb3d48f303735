"""The interface of a model under attack: logits and a vector-Jacobian product, in numpy."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Calls", "Model", "Seed", "parts"]

Array = NDArray[Any]
Seed = Callable[[Array], Array]
"""Maps logits (batch, classes) to the cotangent of the same shape that is pulled back."""


class Model(Protocol):
    """A classifier of images (batch, channel, height, width), float32 in [0, 1].

    Attributes:
        kind: "onnx" or "torch".
        image_shape: (channel, height, width).
        classes: the number of logits.
        provider: the runtime or device that it runs on.
    """

    @property
    def kind(self) -> Literal["onnx", "torch"]: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def classes(self) -> int: ...
    @property
    def provider(self) -> str: ...

    def logits(self, images: Array) -> Array:
        """Return the logits: (batch, classes), float32."""

    def gradient(self, images: Array, seed: Seed) -> tuple[Array, Array]:
        """Return the logits, and the gradient of sum(seed(logits) * logits) by the images.

        seed(logits) counts as a constant.

        Raises:
            UnsupportedOperator: the model has no gradient.
        """


class Calls:
    """Calls a model in batches of at most `batch_size` rows, and counts the rows.

    Entries of gradients that are not finite are replaced by 0 (docs/method.md).

    Args:
        model: the model.
        batch_size: the most rows in one call.
    """

    def __init__(self, model: Model, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self.forwards = self.gradients = 0

    def logits(self, images: Array) -> Array:
        """Return the logits of any number of images."""
        self.forwards += len(images)
        out = np.empty((len(images), self.model.classes), np.float32)
        for part in parts(len(images), self.batch_size):
            out[part] = self.model.logits(images[part])
        return out

    def gradient(self, images: Array, seed: Callable[[Array, slice], Array]) -> tuple[Array, Array]:
        """Return logits and gradient. `seed` takes logits and the slice of their rows."""
        self.gradients += len(images)
        logits = np.empty((len(images), self.model.classes), np.float32)
        gradient = np.empty(images.shape, np.float32)
        for part in parts(len(images), self.batch_size):
            told = partial(_seeded, seed, part)
            logits[part], gradient[part] = self.model.gradient(images[part], told)
        return logits, np.nan_to_num(gradient, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _seeded(seed: Callable[[Array, slice], Array], rows: slice, logits: Array) -> Array:
    return seed(logits, rows)


def parts(count: int, size: int) -> list[slice]:
    """Return slices of at most `size` rows that cover `count` rows."""
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]
