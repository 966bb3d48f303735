"""Gradients, reference gradients, random batches."""

import torch
from torch import Tensor, nn

from jataug.bridge import OnnxModule

__all__ = ["batch_of", "cotangents", "gradient", "in_double", "relative"]


def gradient(model: nn.Module, images: Tensor, cotangent: Tensor) -> Tensor:
    images = images.detach().clone().requires_grad_()
    (result,) = torch.autograd.grad(model(images), images, cotangent.to(images.dtype))
    return result


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().double() - expected).norm() / expected.norm())


def in_double(module: nn.Module, images: Tensor, cotangent: Tensor) -> Tensor:
    """The gradient in float64; a float32 one may take the other side of a ReLU's kink."""
    try:
        return gradient(module.double(), images.double(), cotangent)
    finally:
        module.float()


def batch_of(model: OnnxModule, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *model.input_shape, generator=generator)


def cotangents(count: int, classes: int = 10) -> Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(5))
