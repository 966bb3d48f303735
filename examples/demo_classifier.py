"""The classifier of `jataug demo`: 63,000 parameters, 5.5 million multiply-adds an image."""

from torch import Tensor, nn

__all__ = ["DemoClassifier"]


class DemoClassifier(nn.Module):
    """Logits (batch, 10) of grey images (batch, 1, 28, 28), float32 in [0, 1]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, 16),
            *_block(16, 16),
            nn.MaxPool2d(2),
            *_block(16, 32),
            *_block(32, 64, stride=2),
            *_block(64, 64),
        )
        self.head = nn.Linear(64, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image).mean(dim=(2, 3)))


def _block(channels: int, width: int, stride: int = 1) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
    return conv, nn.BatchNorm2d(width), nn.ReLU()
