"""Directions of ascent, and projections onto balls."""

from typing import Literal

import torch
from torch import Tensor

from ..budget import Norm
from ..finalize import INSIDE, ROUNDS

__all__ = ["Branch", "ball", "direction"]

Branch = Literal["flow", "pixel"]

_VECTOR: dict[Branch, tuple[int, ...]] = {"flow": (1,), "pixel": (1, 2, 3)}
"""Branch -> the axes of one of its vectors: per pixel for flow, per image for pixel."""


def direction(branch: Branch, gradient: Tensor, norm: Norm) -> Tensor:
    """Return the generalized gradient sign (claims 5, 6): the sign for "linf", g / ||g|| for "l2".

    A zero vector stays zero. A non-finite entry counts as 0. Vectors of length 1e-24 or 1e30
    neither vanish nor overflow.

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


def ball(
    branch: Branch, value: Tensor, radius: Tensor, norm: Norm, base: Tensor | None = None
) -> Tensor:
    """Return `value` projected onto the ball: no vector (l2) or entry (linf) exceeds its radius.

    Values inside the ball are unchanged.

    Args:
        branch: "flow" or "pixel", as in `direction`.
        value: (batch, channel, height, width).
        radius: (batch,), in the unit of `value`.
        norm: the norm of the branch's budget.
        base: for "pixel" only, the image that `value` is added to; see jataug.finalize.project.
    """
    radius = radius.view(-1, 1, 1, 1)
    if norm == "linf":
        return value.clamp(-radius, radius)
    if base is not None:
        return value * _share(value, (base + value).clamp(0, 1) - base, radius)
    length = _length(branch, value)
    # The margin absorbs rounding: no vector exceeds the radius, and a second projection changes
    # nothing.
    inner = value * (radius * INSIDE) / length.clamp_min(1e-30)
    return torch.where(length <= radius, value, inner)


def _share(value: Tensor, clipped: Tensor, radius: Tensor) -> Tensor:
    """Return the factor by which `value` has to shrink before it is clipped, as in
    jataug.finalize.
    """
    whole, most, limit = value.square(), clipped.square(), radius.square()

    def total(entries: Tensor) -> Tensor:
        return entries.sum((1, 2, 3), keepdim=True)

    share = torch.zeros_like(limit)
    for _ in range(ROUNDS):
        scaled = share * whole
        free = total(whole.where(scaled < most, 0.0)).clamp_min(1e-30)
        share = (share + (limit - total(scaled.minimum(most))) / free).clamp(0, 1)
    return torch.where(total(most) <= limit, 1.0, share.sqrt() * INSIDE)


def _length(branch: Branch, value: Tensor) -> Tensor:
    return value.square().sum(_VECTOR[branch], keepdim=True).sqrt()
