"""Accuracy on the held-out part, clean and under the evaluation attack."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..attack import JointAttack
from ..attack.finalize import from_levels
from ..attack.problem import predict
from ..result import predictions
from .data import TrainData
from .processes import Processes
from .train_config import TrainConfig

__all__ = ["Accuracy", "measure"]


class Accuracy(NamedTuple):
    """Parts of 1; None where there was no image to measure."""

    clean: float | None
    robust: float | None


def measure(
    model: nn.Module, config: TrainConfig, data: TrainData, processes: Processes
) -> Accuracy:
    """Return the accuracy on the validation part, and on its first `evaluation_images` attacked.

    Every evaluation draws the same starts. Logits that are not finite are no right prediction. The
    model's mode comes back.
    """
    training = model.training
    model.eval()
    attack = JointAttack(config.evaluation_attack)
    robust_count = config.evaluation_images if attack.config.branches else 0
    held = len(data.validation)
    clean = robust = 0
    share = max(1, config.batch_size // processes.size)
    for begin in range(processes.rank * share, held, processes.size * share):
        end = min(begin + share, held)
        indices = data.validation[begin:end]
        labels = data.labels[torch.from_numpy(indices)].to(processes.device)
        levels = data.images.take(indices.tolist()).to(processes.device)
        images = from_levels(levels.permute(0, 2, 3, 1))
        with torch.no_grad():
            clean += _right(predictions(predict(model, images)), labels)
        count = min(end, robust_count) - begin
        if count > 0:
            found = attack(model, images[:count], labels[:count], indices[:count], seed=config.seed)
            robust += _right(found.prediction, labels[:count])
    model.train(training)
    clean_total, robust_total = processes.total(clean, robust)
    return Accuracy(
        clean_total / held if held else None,
        robust_total / min(robust_count, held) if robust_count and held else None,
    )


def _right(prediction: Tensor, labels: Tensor) -> int:
    return int((prediction == labels).sum())
