"""Runs an .onnx file in one process, forward and backward."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jataug.errors import JataugError
from jataug.preprocessing import Preprocessing
from jataug.runtime.on_device.shared import run_shared, settle
from jataug.runtime.onnxruntime import Engine

if TYPE_CHECKING:
    import onnx

    from jataug.export.model.classifier import Classifier

__all__ = ["Kept", "Sessions"]


Kept = list[list[Any]]
"""For each chunk of a batch, the runtime's values that the gradient needs."""


@dataclass(frozen=True)
class _Split:
    first: Engine
    second: Engine
    saved: list[str]


class Sessions:
    """A network and its engines. Each engine is compiled when it is first needed.

    Attributes:
        shapes: the shapes of one image and of its row of logits.
    """

    def __init__(
        self,
        model: "Path | onnx.ModelProto",
        preprocessing: Preprocessing | None,
        device: str,
        threads: int | None,
        size: tuple[int, int] | None,
        check: bool = True,
    ) -> None:
        from jataug.export.check.agreement import check_logits
        from jataug.export.gradient.split_vjp import row_shapes
        from jataug.export.model.load import load_model, prepare

        name, proto = preprocessing.logits if preprocessing else None, load_model(model)
        self._network: Classifier = prepare(proto, of=name, preprocessing=preprocessing, size=size)
        self._preprocessing, self._device, self._threads = preprocessing, device, threads
        number = device.partition(":")[2]
        self._number = int(number) if number.isdigit() else 0
        fixed = self._network.image_shape[0]
        self._batch = fixed if isinstance(fixed, int) else None
        self.shapes = row_shapes(self._network, preprocessing)
        if check:
            check_logits(proto, self._network, preprocessing)

    def device_for(self, images: Tensor) -> torch.device:
        """Return the device from which the runtime reads: CUDA if both are on it, else the CPU."""
        if images.is_cuda and self._plain.device == "cuda":
            return torch.device("cuda", self._number)
        return torch.device("cpu")

    @cached_property
    def _plain(self) -> Engine:
        from jataug.export.gradient.split_vjp import forward_graph

        return self._engine(forward_graph(self._network, self._preprocessing))

    @cached_property
    def _split(self) -> "_Split | JataugError":
        from jataug.export.gradient.split_vjp import split_vjp

        try:
            found = split_vjp(self._network, self._preprocessing)
        except JataugError as error:
            return error
        return _Split(self._engine(found.forward), self._engine(found.backward), found.saved)

    def _engine(self, model: "onnx.ModelProto") -> Engine:
        return Engine(model, {}, self._device, self._threads)

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self._forward(self._plain, images, ())[0]

    def forward(self, images: Tensor) -> tuple[Tensor, Kept]:
        """Return the logits and the values for `backward`, which are empty without a gradient."""
        split = self._split
        if isinstance(split, JataugError):
            return self.predict(images), []
        return self._forward(split.first, images, split.saved)

    def _forward(self, engine: Engine, images: Tensor, kept: Sequence[str]) -> tuple[Tensor, Kept]:
        images = images.detach().contiguous()
        logits = images.new_empty((len(images), *self.shapes[1]))
        saved = [
            self._run(engine, {"image": image}, {"logits": out}, kept)
            for image, out in self._chunks(images, logits)
        ]
        return logits, saved

    def backward(self, cotangent: Tensor, kept: Kept) -> Tensor:
        """Return the gradient of sum(cotangent * logits) by the images.

        Raises:
            UnsupportedOperator, ModelError: the network has no gradient.
        """
        split = self._split
        if isinstance(split, JataugError):
            raise type(split)(*split.args)  # raising the kept error would keep its frames alive
        gradient = cotangent.new_empty((len(cotangent), *self.shapes[0]))
        chunks = self._chunks(cotangent.contiguous(), gradient)
        for (part, out), values in zip(chunks, kept, strict=True):
            feeds = {"cotangent": part, **dict(zip(split.saved, values, strict=True))}
            self._run(split.second, feeds, {"gradient": out}, ())
        return gradient

    def _run(
        self, engine: Engine, feeds: dict[str, Any], results: dict[str, Tensor], kept: Sequence[str]
    ) -> list[Any]:
        (device,) = {tensor.device for tensor in results.values()}
        settle(device)
        return run_shared(engine, feeds, results, kept, self._number)

    def _chunks(self, rows: Tensor, results: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield both arrays in chunks of the model's batch size.

        The results of a padded chunk are copied when the next chunk is requested.
        """
        size = self._batch or max(len(rows), 1)
        for first in range(0, len(rows), size):
            row, result = rows[first : first + size], results[first : first + size]
            if self._batch in (None, len(row)):
                yield row, result
            else:
                padded = row.new_zeros((size, *row.shape[1:]))
                padded[: len(row)] = row
                scratch = result.new_empty((size, *result.shape[1:]))
                yield padded, scratch
                result.copy_(scratch[: len(result)])
