"""Directions of ascent, and the balls they end in."""

from typing import Literal

import torch
from torch import Tensor

from ..budget import Norm

__all__ = ["Branch", "ball", "direction"]

Branch = Literal["flow", "pixel"]

_VECTOR: dict[Branch, tuple[int, ...]] = {"flow": (1,), "pixel": (1, 2, 3)}
"""The axes that one vector of a branch runs along."""


def direction(branch: Branch, gradient: Tensor, norm: Norm) -> Tensor:
    """Return the generalized gradient sign (claims 5, 6): the sign for "linf", g / ||g|| for "l2".

    A zero vector stays zero, a non-finite entry counts as 0, and a vector of 1e-24 or 1e30 neither
    vanishes nor overflows.

    Args:
        branch: "flow", whose vectors are per pixel, or "pixel", whose vectors are per image.
        gradient: (batch, channel, height, width).
        norm: the norm of the branch's budget.
    """
    gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
    if norm == "linf":
        return gradient.sign()
    largest = gradient.abs().amax(_VECTOR[branch], keepdim=True)
    scaled = gradient / largest.where(largest > 0, 1.0)
    return scaled / _length(branch, scaled).clamp_min(1.0)


def ball(branch: Branch, value: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """Return `value` with no vector (l2) or entry (linf) above its image's radius; inside, it is
    unchanged.

    Args:
        branch: "flow" or "pixel", as in `direction`.
        value: (batch, channel, height, width).
        radius: (batch,), in the unit of `value`.
        norm: the norm of the branch's budget.
    """
    radius = radius.view(-1, 1, 1, 1)
    if norm == "linf":
        return value.clamp(-radius, radius)
    length = _length(branch, value)
    # The margin takes up the rounding: no vector ends above the radius, and a second projection
    # changes nothing.
    inner = value * (radius * (1 - 2**-22)) / length.clamp_min(1e-30)
    return torch.where(length <= radius, value, inner)


def _length(branch: Branch, value: Tensor) -> Tensor:
    return value.square().sum(_VECTOR[branch], keepdim=True).sqrt()
