"""The autograd functions of OnnxModule."""

from typing import Any

import torch
from torch import Tensor

from jataug.errors import UnsupportedOperator

from .sessions import Kept, Sessions

__all__ = ["Differentiable"]


class Differentiable(torch.autograd.Function):
    """Maps images to logits with `Sessions`."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, sessions: Sessions) -> Tensor:
        ctx.sessions = sessions
        ctx.save_for_backward(images)
        logits, ctx.kept = sessions.forward(images)
        # What the runtime keeps holds the tensor it wrote to; as the result, which holds this
        # context, that tensor would close a cycle that no collector sees.
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        (images,) = ctx.saved_tensors
        return _Gradient.apply(cotangent, images, ctx.sessions, ctx.kept), None  # type: ignore[no-untyped-call]


class _Gradient(torch.autograd.Function):
    # torch's once_differentiable returns a constant where only the images need a gradient: a
    # gradient penalty would then be silently without effect.
    @staticmethod
    def forward(ctx: Any, cotangent: Tensor, images: Tensor, sessions: Sessions, kept: Kept) -> Any:
        return sessions.backward(cotangent, kept)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        raise UnsupportedOperator(
            "OnnxModule supports at most one derivative, and a second one was asked for"
        )
