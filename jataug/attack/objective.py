"""The three objectives: which label drives which gradient, and with which sign."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from ..config import Objective

__all__ = ["cotangent", "loss"]


def loss(objective: Objective, logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """Return the objective of each image: (batch,). It is never summed or averaged.

    Args:
        objective: "truth" CE(a, y) (claims 5, 12), "target" -CE(a, t) (claims 1, 8), "margin"
            CE(a, y) - CE(a, t) (claim 1).
        logits: (batch, classes).
        label: (batch,), int64; y.
        target: (batch,), int64; t.
    """
    if objective == "truth":
        return cross_entropy(logits, label, reduction="none")
    if objective == "target":
        return -cross_entropy(logits, target, reduction="none")
    return (_entry(logits, target) - _entry(logits, label)).squeeze(1)


def cotangent(objective: Objective, logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """Return the direction of ascent at the logits: (batch, classes).

    It is the gradient of the loss up to a positive factor per image; the largest entry of each row
    is 1 in size. The gradient itself is unusable, because its entry of the true class is exactly 0
    in float32 for many confident images.
    """
    towards, away = _unit(logits, target), _unit(logits, label)
    if objective == "truth":
        return _others(logits, label) - away
    if objective == "target":
        return towards - _others(logits, target)
    return towards - away


def _entry(logits: Tensor, index: Tensor) -> Tensor:
    return logits.gather(1, index[:, None])


def _unit(logits: Tensor, index: Tensor) -> Tensor:
    return one_hot(index, logits.shape[1]).to(logits.dtype)


def _others(logits: Tensor, index: Tensor) -> Tensor:
    return logits.scatter(1, index[:, None], -torch.inf).softmax(1)
