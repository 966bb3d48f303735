"""Soft labels (claim 19), in either of the two conventions in use."""

import torch
from torch import Tensor

from .train_config import Convention

__all__ = ["smooth"]


def smooth(labels: Tensor, classes: int, amount: float, convention: Convention) -> Tensor:
    """Return the distribution that each label becomes: (batch, classes), float32.

    "authors": the true class gets 1 - amount, each other class amount / (classes - 1). "torch": as
    torch.nn.CrossEntropyLoss(label_smoothing=amount): every class gets amount / classes, the true
    one 1 - amount besides. The former at s is the latter at s * classes / (classes - 1).

    Args:
        labels: (batch,), int64.
        classes: how many there are, 2 or more.
        amount: in [0, 1).
        convention: see above.
    """
    other = amount / (classes - 1) if convention == "authors" else amount / classes
    true = 1 - amount if convention == "authors" else 1 - amount + amount / classes
    soft = torch.full((len(labels), classes), other, device=labels.device)
    return soft.scatter_(1, labels[:, None], true)
