"""Rules of normalizations. Gradients pass through statistics that are computed from the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jataug.errors import UnsupportedOperator

from ..graph.builder import Term
from .table import rule


@rule("BatchNormalization", "X")
def batch_normalization(
    g: Term,
    Y: Term,
    X: Term,
    scale: Term,
    B: Term,
    mean: Term,
    var: Term,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Term:
    if training_mode:
        raise UnsupportedOperator(
            "BatchNormalization in training form mixes the images of a batch; export the model "
            "in eval mode"
        )
    per_channel = (1, -1, *[1] * (len(X.shape or ()) - 2))
    if scale.const is not None and var.const is not None:
        gain = scale.const / np.sqrt(var.const + var.const.dtype.type(epsilon))
        return g * g.graph.constant(gain.reshape(per_channel), X.dtype)
    channels = (1, *(scale.shape or ()), *per_channel[2:])
    return g * (scale / (var + epsilon).sqrt()).reshape(channels).cast(X.dtype)


@rule("LayerNormalization", "X")
def layer_normalization(
    g: Term,
    Y: Term,
    X: Term,
    Scale: Term,
    B: Term | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Term:
    return _standardized(g * Scale, X, _from(axis, X), epsilon)


@rule("LayerNormalization", "Scale")
def layer_normalization_scale(
    g: Term,
    Y: Term,
    X: Term,
    Scale: Term,
    B: Term | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Term:
    axes = _from(axis, X)
    centred = _centred(_wide(X), axes)
    return g * (centred * _inverse_deviation(centred, axes, epsilon)).cast(g.dtype)


@rule("LayerNormalization", "B")
def layer_normalization_shift(
    g: Term,
    Y: Term,
    X: Term,
    Scale: Term,
    B: Term,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Term:
    return g


@rule("RMSNormalization", "X")
def rms_normalization(
    g: Term,
    Y: Term,
    X: Term,
    scale: Term,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Term:
    axes = _from(axis, X)
    x = _wide(X)
    return _divided(g * scale, x, _inverse_deviation(x, axes, epsilon), axes).cast(X.dtype)


@rule("RMSNormalization", "scale")
def rms_normalization_scale(
    g: Term,
    Y: Term,
    X: Term,
    scale: Term,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Term:
    x = _wide(X)
    return g * (x * _inverse_deviation(x, _from(axis, X), epsilon)).cast(g.dtype)


@rule("InstanceNormalization", "input")
def instance_normalization(
    g: Term, Y: Term, input: Term, scale: Term, B: Term, *, epsilon: float = 1e-5
) -> Term:
    rank = len(input.shape or ())
    gain = scale.reshape((1, *(scale.shape or ()), *[1] * (rank - 2)))
    return _standardized(g * gain, input, list(range(2, rank)), epsilon)


@rule("GroupNormalization", "X")
def group_normalization(
    g: Term,
    Y: Term,
    X: Term,
    scale: Term,
    bias: Term,
    *,
    epsilon: float = 1e-5,
    num_groups: int,
    stash_type: int = 1,
) -> Term:
    """Group normalization: the scale is per group in opset 18, and per channel from 21 on."""
    batch, channels, *spatial = X.shape or ()
    if not isinstance(channels, int) or not all(isinstance(size, int) for size in spatial):
        raise UnsupportedOperator(f"{X.value.name}: its channels and sizes must be known at export")
    grouped = (batch, num_groups, channels // num_groups, *spatial)
    per_group = (scale.shape or ())[0] == num_groups
    ones = [1] * len(spatial)
    gain = scale.reshape(
        (1, num_groups, 1, *ones) if per_group else (1, num_groups, channels // num_groups, *ones)
    )
    axes = list(range(2, 3 + len(spatial)))
    found = _standardized(g.reshape(grouped, g) * gain, X.reshape(grouped, X), axes, epsilon)
    return found.reshape_like(X)


@rule("MeanVarianceNormalization", "X")
def mean_variance_normalization(
    g: Term, Y: Term, X: Term, *, axes: Sequence[int] = (0, 2, 3)
) -> Term:
    centred = X - X.mean(axes)
    deviation = (centred * centred).mean(axes).sqrt()
    inverse = 1 / (deviation + 1e-9)
    # The deviation has no derivative where all entries are equal; 0 is used there.
    slope = centred / deviation.equals(0.0).where(1.0, deviation)
    return inverse * (g - g.mean(axes) - slope * (g * centred * inverse).mean(axes))


@rule("LpNormalization", "input")
def lp_normalization(g: Term, Y: Term, input: Term, *, axis: int = -1, p: int = 2) -> Term:
    if p == 1:
        norm, slope = input.abs().sum([axis]), input.sign()
    else:
        norm, slope = (input * input).sum([axis]).sqrt(), Y
    # By the standard a norm of 0 gives 0; it has no derivative there, so 0 is used.
    zero = norm.equals(0.0)
    safe = zero.where(1.0, norm)
    return zero.where(0.0, (g - slope * (g * Y).sum([axis])) / safe)


@rule("LRN", "X")
def lrn(
    g: Term,
    Y: Term,
    X: Term,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    bias: float = 1.0,
    size: int,
) -> Term:
    """Y = X / d^beta, where d = bias + alpha / size * the sum of squares over nearby channels."""
    before, after = (size - 1) // 2, size // 2
    d = _nearby(X * X, before, after) * (alpha / size) + bias
    # The window of channels that read a channel is the mirror image of the window that it reads.
    seen = _nearby(g * Y / d, after, before)
    return g * d ** (-beta) - X * seen * (2 * alpha * beta / size)


def _nearby(term: Term, before: int, after: int) -> Term:
    """Return, per channel, the sum from `before` channels before it to `after` after it."""
    channels = (term.shape or ())[1]
    if not isinstance(channels, int):
        raise UnsupportedOperator(f"{term.value.name}: its channels must be known at export")
    around: Any = [0] * (len(term.shape or ()) - 2)
    padded = term.pad([0, before, *around], [0, after, *around])
    total = padded.slice([0], [channels], [1])
    for k in range(1, before + after + 1):
        total = total + padded.slice([k], [k + channels], [1])
    return total


def _from(axis: int, X: Term) -> list[int]:
    rank = len(X.shape or ())
    return list(range(axis % rank, rank))


def _wide(X: Term) -> Term:
    """Return a 16-bit term as float32, in which the standard computes the statistics."""
    return X.cast(np.float32) if X.dtype is not None and X.dtype.itemsize < 4 else X


def _centred(x: Term, axes: Sequence[int]) -> Term:
    return x - x.mean(axes)


def _inverse_deviation(x: Term, axes: Sequence[int], epsilon: float) -> Term:
    return 1 / ((x * x).mean(axes) + epsilon).sqrt()


def _standardized(g: Term, X: Term, axes: Sequence[int], epsilon: float) -> Term:
    """Return the cotangent of X for Y = (X - mean) / deviation."""
    centred = _centred(_wide(X), axes)
    found = _divided(g, centred, _inverse_deviation(centred, axes, epsilon), axes)
    return _centred(found, axes).cast(X.dtype)


def _divided(g: Term, x: Term, inverse: Term, axes: Sequence[int]) -> Term:
    """Return the cotangent of x for y = x * inverse, its inverse root mean square."""
    y, wide = x * inverse, g.cast(x.dtype)
    return inverse * (wide - y * (wide * y).mean(axes))
