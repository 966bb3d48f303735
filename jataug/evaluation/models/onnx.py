"""An .onnx file as a model under evaluation; ONNX Runtime computes its gradient."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...errors import JataugError, ModelError
from ...preprocessing import Preprocessing
from .model import Array, Seed

if TYPE_CHECKING:
    import onnx

    from jataug.export.gradient.split_vjp import SplitVjp
    from jataug.runtime.onnxruntime import Engine

__all__ = ["OnnxModel"]

_SIZES = 8
"""Batches are padded to a multiple of 1/8 of the batch size, so that few sizes occur."""


class OnnxModel:
    """A classifier in an ONNX file. Its gradient reuses the values of the forward pass.

    Args:
        model: an .onnx file or a ModelProto.
        preprocessing: maps images in [0, 1] to the model's input.
        device: "auto", "cpu", "cuda" or "cuda:<i>".
        batch_size: the largest batch that it will be called with.
        size: (height, width) for a model that leaves them open.
        threads: threads of the runtime; None leaves the choice to it.
        tf32: allow TF32 on CUDA.

    Raises:
        ModelError: the model is not a classifier of images.
    """

    kind: Literal["onnx"] = "onnx"

    def __init__(
        self,
        model: "str | os.PathLike[str] | onnx.ModelProto",
        preprocessing: Preprocessing | None = None,
        *,
        device: str = "auto",
        batch_size: int = 64,
        size: tuple[int, int] | None = None,
        threads: int | None = None,
        tf32: bool = False,
    ) -> None:
        from jataug.export.gradient.split_vjp import row_shapes
        from jataug.export.model.load import load_model, prepare

        wanted = preprocessing or Preprocessing()
        source = Path(model) if isinstance(model, (str, os.PathLike)) else model
        self._network = prepare(
            load_model(source),
            of=wanted.logits,
            preprocessing=wanted,
            size=size,
        )
        self.preprocessing = wanted.determined()
        image, logits = row_shapes(self._network, self.preprocessing)
        if len(image) != 3 or len(logits) != 1 or logits[0] < 2:
            raise ModelError(
                f"model: expected images (channel, height, width) and two or more logits, got "
                f"{image} and {logits}"
            )
        self.preprocessing.check_channels(image[0])
        self.image_shape: tuple[int, int, int] = (image[0], image[1], image[2])
        self.classes = logits[0]
        self._device, self._source, self._threads, self._tf32 = device, source, threads, tf32
        fixed = self._network.image_shape[0]
        self._fixed = fixed if isinstance(fixed, int) else None
        self._step = max(1, batch_size // _SIZES)

    @property
    def provider(self) -> str:
        """The execution provider that runs the model."""
        return self._plain.providers[0]

    @property
    def straight_through(self) -> bool:
        """Whether the model is quantised, and its gradient an estimate."""
        return bool(self._network.straight_through)

    @property
    def hides(self) -> str | None:
        """Op and node that hide the gradient of the logits, where the caller insisted on them."""
        return self._network.head.hides

    @cached_property
    def module(self) -> Any:
        """The same model as a torch module: jataug.bridge.OnnxModule.

        Raises:
            MissingExtra: torch is not installed.
        """
        from jataug.bridge import OnnxModule

        return OnnxModule(self._source, self.preprocessing, device=self._device)

    @cached_property
    def _plain(self) -> "Engine":
        from jataug.export.gradient.split_vjp import forward_graph

        return self._engine(forward_graph(self._network, self.preprocessing))

    @cached_property
    def _split(self) -> "tuple[SplitVjp, Engine, Engine] | JataugError":
        from jataug.export.gradient.split_vjp import split_vjp

        try:
            found = split_vjp(self._network, self.preprocessing)
        except JataugError as error:
            return error
        return found, self._engine(found.forward), self._engine(found.backward)

    def _engine(self, model: "onnx.ModelProto") -> "Engine":
        from jataug.runtime.onnxruntime import Engine

        return Engine(model, {}, self._device, self._threads, tf32=self._tf32)

    def logits(self, images: Array) -> Array:
        """Return the logits: (batch, classes), float32."""
        out = np.empty((len(images), self.classes), np.float32)
        for rows, padded in self._padded(images):
            out[rows] = self._plain.run({"image": padded})["logits"][: rows.stop - rows.start]
        return out

    def gradient(self, images: Array, seed: Seed) -> tuple[Array, Array]:
        """Return the logits, and the gradient of sum(seed(logits) * logits) by the images.

        Raises:
            UnsupportedOperator, ModelError: the model has no gradient.
        """
        logits = np.empty((len(images), self.classes), np.float32)
        held = [
            (rows, *self._forward(rows, padded, logits)) for rows, padded in self._padded(images)
        ]
        cotangent = np.ascontiguousarray(seed(logits), dtype=np.float32)
        gradient = np.empty(images.shape, np.float32)
        for rows, size, values in held:
            gradient[rows] = self._backward(cotangent[rows], size, values)
        return logits, gradient

    def _forward(self, rows: slice, images: Array, logits: Array) -> tuple[int, list[Any]]:
        from jataug.runtime.on_device.shared import run_shared

        split, engine, _ = self._differentiable
        out = np.empty((len(images), self.classes), np.float32)
        values = run_shared(engine, {"image": images}, {"logits": out}, split.saved, self._number)
        logits[rows] = out[: rows.stop - rows.start]
        return len(images), values

    def _backward(self, cotangent: Array, size: int, values: list[Any]) -> Array:
        from jataug.runtime.on_device.shared import run_shared

        split, _, engine = self._differentiable
        padded = np.zeros((size, self.classes), np.float32)
        padded[: len(cotangent)] = cotangent
        out = np.empty((size, *self.image_shape), np.float32)
        feeds = {"cotangent": padded, **dict(zip(split.saved, values, strict=True))}
        run_shared(engine, feeds, {"gradient": out}, (), self._number)
        return out[: len(cotangent)]

    @property
    def _differentiable(self) -> "tuple[SplitVjp, Engine, Engine]":
        split = self._split
        if isinstance(split, JataugError):
            raise type(split)(*split.args)  # raising the kept error would keep its frames alive
        return split

    @property
    def _number(self) -> int:
        number = self._device.partition(":")[2]
        return int(number) if number.isdigit() else 0

    def _padded(self, images: Array) -> Iterator[tuple[slice, Array]]:
        """Yield parts of a batch, padded with its first image to one of few sizes."""
        most = self._fixed or max(len(images), 1)
        for first in range(0, len(images), most):
            rows = slice(first, min(first + most, len(images)))
            count = rows.stop - rows.start
            size = self._fixed or -(-count // self._step) * self._step
            padded = np.empty((size, *self.image_shape), np.float32)
            padded[:count], padded[count:] = images[rows], images[first]
            yield rows, padded
