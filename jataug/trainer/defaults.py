"""What a run chooses for itself where the user says nothing; docs/train.md has the same table."""

from typing import Any

from .train_config import UNSAID, TrainConfig

__all__ = ["choose", "unsaid"]

_LARGE = 64
"""Pixels: images whose shorter side is longer get the network with the ImageNet stem."""

_BY_COUNT = ((20_000, "wrn-28-10", 200), (2_000, "resnet-18", 100), (0, "small-cnn", 50))
"""Network and epochs by the least number of training images; the first row is the recipe."""

_STEPS = 50
"""Steps that an epoch has at least, as far as batches of 16 to 128 allow."""


def unsaid(config: TrainConfig) -> list[str]:
    """Return the options that the user left out and that a run chooses."""
    return [name for name in UNSAID if getattr(config, name) is None]


def choose(config: TrainConfig, count: int, shape: tuple[int, int, int]) -> TrainConfig:
    """Return the configuration with everything said: a rule of thumb, not a tuned choice.

    Args:
        config: the user's; what it says stays.
        count: images of the source, those held out included.
        shape: (channel, height, width) of the images.
    """
    missing = unsaid(config)
    validation = min(1000, count // 10) if "validation" in missing else config.validation
    images = max(1, count - validation)
    model, epochs = next((name, number) for least, name, number in _BY_COUNT if images >= least)
    chosen: dict[str, Any] = {
        "model": "resnet-18-imagenet" if min(shape[1:]) > _LARGE else model,
        "epochs": epochs,
        "batch_size": min(images, next((b for b in (128, 64, 32) if images >= b * _STEPS), 16)),
        "validation": validation,
        "label_smoothing": 0.0 if config.mode == "natural" else 0.5,
        "milestones": (0.3, 0.45),
    }
    return config.replace(**{name: chosen[name] for name in missing})
