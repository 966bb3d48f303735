"""The objectives that attacks ascend, and their cotangents at the logits, per image.

Values are float64, because the cross entropy of a confident image is exactly 0 in float32.
"""

from typing import Literal

import numpy as np

from ...result import finite_rows
from ..models.model import Array

__all__ = ["Objective", "cotangent", "margin", "softmax", "value"]

Objective = Literal["truth", "target", "margin", "dlr", "dlr-targeted"]


def value(objective: Objective, logits: Array, label: Array, target: Array) -> Array:
    """Return the objective of each row: (rows,), float64; -inf where logits are not finite.

    Args:
        objective: "truth" CE(a, y); "target" -CE(a, t); "margin" z_t - z_y; "dlr" and
            "dlr-targeted": the difference of logits ratio (Croce and Hein, ICML 2020). With three
            classes or fewer the ratio's denominator is the spread of all logits.
        logits: (rows, classes).
        label: (rows,), int64.
        target: (rows,), int64.
    """
    finite = finite_rows(logits)
    z = np.where(finite[:, None], logits, 0).astype(np.float64)
    found: Array = np.where(finite, _VALUES[objective](z, label, target), -np.inf)
    return found


def cotangent(objective: Objective, logits: Array, label: Array, target: Array) -> Array:
    """Return the direction of ascent at the logits: (rows, classes), float32.

    It is the gradient of `value` up to a positive factor per row; its largest entry is 1 in size.
    The gradient of the cross entropy itself would vanish for confident images.
    """
    finite = finite_rows(logits)
    z = np.where(finite[:, None], logits, 0).astype(np.float64)
    found = _COTANGENTS[objective](z, label, target)
    largest = np.abs(found).max(1, keepdims=True)
    scaled = found / np.where(largest > 0, largest, 1.0)
    return np.where(finite[:, None], scaled, 0).astype(np.float32)


def margin(logits: Array, label: Array) -> Array:
    """Return the best other logit minus the label's: (rows,), float64. Above 0 means broken."""
    z = logits.astype(np.float64)
    found: Array = _others(z, label).max(1) - _entry(z, label)
    return found


def softmax(logits: Array) -> Array:
    """Return probabilities (rows, classes), float64."""
    z = logits.astype(np.float64)
    powers = np.exp(z - z.max(1, keepdims=True))
    found: Array = powers / powers.sum(1, keepdims=True)
    return found


def _entry(z: Array, index: Array) -> Array:
    found: Array = np.take_along_axis(z, index[:, None], 1)[:, 0]
    return found


def _unit(z: Array, index: Array) -> Array:
    found = np.zeros_like(z)
    found[np.arange(len(z)), index] = 1
    return found


def _others(z: Array, index: Array) -> Array:
    found = z.copy()
    found[np.arange(len(z)), index] = -np.inf
    return found


def _cross_entropy(z: Array, index: Array) -> Array:
    others = _others(z, index)
    top = others.max(1)
    lead = top + np.log(np.exp(others - top[:, None]).sum(1)) - _entry(z, index)
    found: Array = np.logaddexp(0.0, lead)
    return found


def _spread(z: Array, targeted: bool) -> tuple[Array, Array]:
    """Return the ratio's denominator (rows,) and its gradient (rows, classes)."""
    order = np.argsort(-z, axis=1)
    first = order[:, 0]
    if z.shape[1] <= 3:
        low, gradient = _entry(z, order[:, -1]), _unit(z, order[:, -1])
    elif targeted:
        low = (_entry(z, order[:, 2]) + _entry(z, order[:, 3])) / 2
        gradient = (_unit(z, order[:, 2]) + _unit(z, order[:, 3])) / 2
    else:
        low, gradient = _entry(z, order[:, 2]), _unit(z, order[:, 2])
    return _entry(z, first) - low + 1e-12, _unit(z, first) - gradient


def _dlr(z: Array, label: Array, target: Array, targeted: bool) -> tuple[Array, Array]:
    rival = target if targeted else _others(z, label).argmax(1)
    lead = _entry(z, rival) - _entry(z, label)
    spread, slope = _spread(z, targeted)
    toward = _unit(z, rival) - _unit(z, label)
    # The gradient of lead / spread, times spread.
    return lead / spread, toward - (lead / spread)[:, None] * slope


_VALUES = {
    "truth": lambda z, y, t: _cross_entropy(z, y),
    "target": lambda z, y, t: -_cross_entropy(z, t),
    "margin": lambda z, y, t: _entry(z, t) - _entry(z, y),
    "dlr": lambda z, y, t: _dlr(z, y, t, False)[0],
    "dlr-targeted": lambda z, y, t: _dlr(z, y, t, True)[0],
}

_COTANGENTS = {
    "truth": lambda z, y, t: softmax(_others(z, y)) - _unit(z, y),
    "target": lambda z, y, t: _unit(z, t) - softmax(_others(z, t)),
    "margin": lambda z, y, t: _unit(z, t) - _unit(z, y),
    "dlr": lambda z, y, t: _dlr(z, y, t, False)[1],
    "dlr-targeted": lambda z, y, t: _dlr(z, y, t, True)[1],
}
