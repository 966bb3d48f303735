"""The module: what torch and the libraries on top of it see of an .onnx file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from jataug.errors import DataError
from jataug.preprocessing import Preprocessing

from .derivative import Differentiable
from .sessions import Sessions

if TYPE_CHECKING:
    import onnx

__all__ = ["OnnxModule"]


class OnnxModule(nn.Module):
    """A classifier in an ONNX file, differentiable in its input. It has no weights to train.

    Forward takes float tensors (batch, *input_shape) and returns (batch, *output_shape) in their
    type and on their device; ONNX Runtime computes in float32. Any batch size works: a model of
    fixed batch runs in chunks, the last one padded.

    Where the input requires a gradient, the forward pass keeps the values that the gradient needs
    (as torch does, until the result is freed) and the backward pass starts from them; nothing is
    computed twice. Without a gradient a plain forward graph runs. Each graph is compiled when it is
    first needed, once per process: what forks or unpickles opens its own. A pickle or deep copy
    holds the path of the file, or the ModelProto.

    The output is compared once with that of the model as it came, where ONNX Runtime can run it: a
    fault in how the file is read is an error, never another network.

    The module starts in eval mode and train() changes nothing; state_dict() is empty. Its only
    parameter is empty and frozen: libraries read the device from it.

    Args:
        model: an .onnx file or a ModelProto.
        preprocessing: None takes the network's own input and returns its only output as it is.
            Given, the input is images (batch, channel, height, width) in [0, 1], and the output
            logits (batch, classes).
        device: where ONNX Runtime runs: "auto" (CUDA where it loads), "cpu", "cuda" or "cuda:<i>".
            Tensors may be on another device; they are copied then, and shared otherwise.
        threads: of ONNX Runtime; None leaves the choice to it.
        size: (height, width) for a model that leaves them open.

    Raises:
        CheckError: the output is not the model's.
        ModelError: the file is missing, broken, or has several outputs (name the logits in
            `preprocessing`), or its shapes are not known.
        DataError (on a call): another shape than the model's, or not floating point.
        UnsupportedOperator (on backward): an op between input and output has no derivative rule;
            forward works all the same. A second derivative is refused likewise.
        RuntimeUnavailable (on the first call): the device did not load.
    """

    def __init__(
        self,
        model: "str | Path | onnx.ModelProto",
        preprocessing: Preprocessing | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self._model = Path(model).absolute() if isinstance(model, (str, Path)) else model
        self._options = (preprocessing, device, threads, size)
        self._opened: dict[int, Sessions] = {}
        self._is_checked = False
        self.marker = nn.Parameter(torch.empty(0), requires_grad=False)
        self.eval()
        self.input_shape, self.output_shape = self._sessions.shapes

    @property
    def _sessions(self) -> Sessions:
        # A fork cannot use its parent's sessions, nor free them: their threads did not come along.
        process = os.getpid()
        if process not in self._opened:
            self._opened[process] = Sessions(self._model, *self._options, not self._is_checked)
            self._is_checked = True
        return self._opened[process]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of a batch; see the class."""
        self._check(images)
        sessions = self._sessions
        inside = images.to(sessions.device_for(images), torch.float32)
        if inside.requires_grad and torch.is_grad_enabled():
            logits: Tensor = Differentiable.apply(inside, sessions)  # type: ignore[no-untyped-call]
        else:
            logits = sessions.predict(inside)
        return logits.to(images.device, images.dtype)

    def _check(self, images: Tensor) -> None:
        expected = f"images: expected a float tensor {_shape(('batch', *self.input_shape))}"
        if not isinstance(images, Tensor):
            raise DataError(f"{expected}, got {type(images).__name__}")
        if images.shape[1:] != self.input_shape or not images.is_floating_point():
            raise DataError(f"{expected}, got {images.dtype} {_shape(images.shape)}")

    def extra_repr(self) -> str:
        """Return the file and the shapes, for repr()."""
        name = repr(str(self._model)) if isinstance(self._model, Path) else "ModelProto"
        return f"{name}, {_shape(self.input_shape)} -> {_shape(self.output_shape)}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    # The marker is no weight: a checkpoint of a larger module neither holds nor wants it.
    def _save_to_state_dict(self, *_: Any) -> None: ...

    def _load_from_state_dict(self, *_: Any) -> None: ...


def _shape(shape: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, shape))})"
