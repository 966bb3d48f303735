"""Small torch classifiers: seeded weights, and batch statistics as training leaves them."""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

__all__ = ["ResNet18", "TinyNet", "resnet18", "settle", "tiny"]

Module = TypeVar("Module", bound=nn.Module)


class TinyNet(nn.Module):
    """Two convolutions, one of stride 2, pooling, a linear head: for tests that run many times."""

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, classes)

    def forward(self, image: Tensor) -> Tensor:
        hidden = F.max_pool2d(F.relu(self.norm(self.first(image))), 2)
        return self.head(F.relu(self.second(hidden)).mean(dim=(2, 3)))


class ResNet18(nn.Module):
    """ResNet-18 with the 3x3 stem that 32x32 images take: 11.2 million parameters."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = _normed(3, 64, 3, stride=1)
        blocks = []
        width = 64
        for target, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [_Residual(width, target, stride), _Residual(target, target, 1)]
            width = target
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.blocks(F.relu(self.stem(image)))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(hidden, 1), 1))


class _Residual(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = _normed(channels, width, 3, stride)
        self.second = _normed(width, width, 3, 1)
        same = stride == 1 and channels == width
        self.skip = nn.Identity() if same else _normed(channels, width, 1, stride)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(hidden))) + self.skip(hidden))


def _normed(channels: int, width: int, size: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width))


def resnet18(seed: int = 0) -> ResNet18:
    """Eval mode. Random weights; the batch statistics are those of 16 random images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return settle(ResNet18(), torch.rand(16, 3, 32, 32))


def tiny(seed: int = 0, channels: int = 3, classes: int = 10) -> TinyNet:
    """Eval mode, for images of any size from 4x4; made like `resnet18`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return settle(TinyNet(channels, classes), torch.rand(16, channels, 16, 16))


@torch.no_grad()
def settle(model: Module, images: Tensor) -> Module:
    """Give every batch norm a random scale and shift, and the statistics of `images`."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0, 0.1)
        norm.momentum = None  # the plain average over the calls
    model.train()(images)
    return model.eval()
