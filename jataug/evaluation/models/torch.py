"""A torch module as a model under evaluation; autograd computes its gradient."""

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...attack.problem import logits_of
from ...errors import MissingExtra, ModelError
from .model import Array, Seed

try:
    import torch
    from torch import nn
except ImportError as error:
    raise MissingExtra(
        "evaluating a torch module needs torch, which is not installed: pip install 'jataug[torch]'"
    ) from error

from ...attack.modes import evaluating

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TorchModel"]


class TorchModel:
    """A module from images in [0, 1] to logits (batch, classes).

    It is in evaluation mode during a call, and every submodule's mode is restored after it. No
    parameter gets a gradient.

    Args:
        module: the classifier. It stays on its device.
        image_shape: (channel, height, width).

    Raises:
        ModelError: its output is not logits.
    """

    kind: Literal["torch"] = "torch"

    def __init__(self, module: nn.Module, image_shape: tuple[int, int, int]) -> None:
        self.module, self.image_shape = module, image_shape
        first = next(iter((*module.parameters(), *module.buffers())), torch.empty(0))
        self._device = first.device
        logits = self.logits(np.zeros((1, *image_shape), np.float32))
        self.classes = logits.shape[1]
        self.provider = f"torch {torch.__version__} {self._device}"

    def logits(self, images: Array) -> Array:
        """Return the logits: (batch, classes), float32."""
        with evaluating(self.module), torch.no_grad():
            return self._array(self._call(self._tensor(images)))

    def gradient(self, images: Array, seed: Seed) -> tuple[Array, Array]:
        """Return the logits, and the gradient of sum(seed(logits) * logits) by the images.

        Raises:
            ModelError: the logits do not depend on the image.
        """
        leaf = self._tensor(images)
        with torch.inference_mode(False), evaluating(self.module), torch.enable_grad():
            leaf = leaf.clone().requires_grad_()
            logits = self._call(leaf)
            if not logits.requires_grad:
                raise ModelError(
                    "model: expected logits with a gradient for the image, got none; the module "
                    "may detach its input or run under torch.no_grad"
                )
            found = self._array(logits)
            cotangent = self._tensor(seed(found)).to(logits.dtype)
            (gradient,) = torch.autograd.grad(logits, leaf, cotangent, materialize_grads=True)
        return found, self._array(gradient)

    def _call(self, images: "Tensor") -> "Tensor":
        logits = logits_of(self.module(images))
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
            got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ModelError(f"model: expected logits (batch, classes), got {got}")
        return logits

    def _tensor(self, array: Array) -> "Tensor":
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self._device)

    def _array(self, tensor: "Tensor") -> Array:
        found: Array = tensor.detach().float().cpu().numpy()
        return found

    @property
    def sha256(self) -> str:
        """The sha256 of the state dict: names, shapes and bytes. It does not cover the code."""
        total = hashlib.sha256(repr(self.module).encode())
        for name, value in self.module.state_dict().items():
            if isinstance(value, torch.Tensor):
                data: Any = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
                total.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
                total.update(data.tobytes())
        return total.hexdigest()
