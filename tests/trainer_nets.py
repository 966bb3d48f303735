"""Networks that the trainer builds by import path."""

import torch
from torch import Tensor, nn


class Grouped(nn.Module):
    """Two convolutions with group norm: no statistics of the batch."""

    def __init__(self, classes: int = 3, width: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False), nn.GroupNorm(2, width),
            nn.ReLU(), nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(4 * width, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))


class Normed(Grouped):
    """The same with batch norm and dropout: everything that a training step changes or draws."""

    def __init__(self, classes: int = 3, width: int = 8) -> None:
        super().__init__(classes, width)
        self.features[1] = nn.BatchNorm2d(width)
        self.features.append(nn.Dropout(0.2))


class Smooth(nn.Sequential):
    """No kink, no statistics, nothing drawn: its steps can be written out."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, classes))


class TwoHeads(Grouped):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = super().forward(image)
        return logits, logits


class Named(Grouped):
    """Its output is a dict, as a transformers classifier's is."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(image)}


class TwoHeadsInTraining(Grouped):
    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits = super().forward(image)
        return (logits, logits) if self.training else logits


class Exploding(Grouped):
    """Its logits become infinite in the twelfth training step."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, image: Tensor) -> Tensor:
        logits = super().forward(image)
        if self.training:
            self.calls += 1
        return logits * torch.inf if self.training and self.calls == 12 else logits


def nothing() -> str:
    return "no module"
