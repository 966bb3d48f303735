"""Finalisation: makes the stored image from the last state of an attack and keeps its budgets.

docs/method.md explains the order of the steps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .budget import Norm
from .config import AttackConfig
from .warp import warp

__all__ = [
    "INSIDE",
    "ROUNDS",
    "channel_axis",
    "finalize",
    "from_levels",
    "project",
    "quantize",
    "reached_levels",
    "to_half",
]

Array = NDArray[Any]

_CHANNELS = (1, 3, 4)

_SLACK = 1e-6
"""Widening of the bounds of 8-bit levels, so that rounding does not exclude a level on a bound."""


INSIDE = 1 - 2**-22
"""Factor of the radius of projected vectors, so that rounding never exceeds the radius."""

ROUNDS = 5
"""Rounds of Newton's method in the l2 projection. For steps up to the radius, five rounds leave at
most 0.05% of it unused, three rounds 2% (docs/method.md).
"""


def channel_axis(shape: Sequence[int]) -> int | None:
    """Return the channel axis of a batch of images, 1 or 3: the one of size 1, 3 or 4.

    It is None if both or neither have such a size.
    """
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    return None if first == last else 1 if first else 3


def from_levels(levels: Array) -> NDArray[np.float32]:
    """Return 8-bit images (batch, height, width, channel) as (batch, channel, height, width),
    float32 in [0, 1].
    """
    planes = np.ascontiguousarray(levels.transpose(0, 3, 1, 2), dtype=np.float32)
    # A division: multiplying by 1/255 gives another float for half of the levels.
    return np.divide(planes, np.float32(255), out=planes)


def to_half(flow: Array) -> NDArray[np.float16]:
    """Return `flow` truncated towards zero to float16, so that no vector grows."""
    # What overflows becomes infinite here, and the largest float16 in the end.
    with np.errstate(over="ignore"):
        half = flow.astype(np.float16)
    grew = np.abs(half.astype(flow.dtype)) > np.abs(flow)
    # One less in the bits is one step towards zero, for either sign.
    bits: NDArray[np.uint16] = half.view(np.uint16) - grew
    return bits.view(np.float16)


def project(
    delta: Array,
    radius: Array,
    norm: Norm,
    axes: tuple[int, ...] = (1, 2, 3),
    base: Array | None = None,
) -> Array:
    """Return `delta` (batch, channel, height, width) inside the ball of each image's radius
    (batch,); the l2 norm is over `axes`: the image, or (1,) for each pixel's flow vector.

    Args:
        delta: what is projected.
        radius: (batch,), in the unit of `delta`.
        norm: of the ball.
        axes: that one vector runs along.
        base: as `delta`, in [0, 1]. With it, clip(base + delta, 0, 1) - base of what is returned
            is the point nearest `delta` that is in the ball and keeps the image in [0, 1].
    """
    radius = radius.reshape(-1, 1, 1, 1).astype(delta.dtype)
    if norm == "linf":
        return np.clip(delta, -radius, radius)
    inside = delta.dtype.type(INSIDE)
    if base is not None:
        return delta * _share(delta, np.clip(base + delta, 0, 1) - base, radius, inside)
    length = np.sqrt(np.square(delta).sum(axis=axes, keepdims=True))
    return np.where(length <= radius, delta, delta * (radius * inside / np.maximum(length, 1e-30)))


def _share(delta: Array, clipped: Array, radius: Array, inside: Any) -> Array:
    """Return the factor by which `delta` has to shrink before it is clipped, (batch, 1, 1, 1).

    What is clipped has the squared length h(u) = sum of min(u delta**2, clipped**2) where u is the
    factor squared. h is concave and grows, so Newton's method from 0 comes to h(u) = radius**2 from
    below: whatever the number of rounds, the result is inside the ball.
    """
    whole, most, limit = np.square(delta), np.square(clipped), np.square(radius)

    def total(entries: Array) -> Array:
        summed: Array = entries.sum(axis=(1, 2, 3), keepdims=True)
        return summed

    share = np.zeros_like(limit)
    for _ in range(ROUNDS):
        scaled = share * whole
        free = np.maximum(total(np.where(scaled < most, whole, 0)), 1e-30)
        missing = limit - total(np.minimum(scaled, most))
        share = np.clip(share + missing / free, 0, 1)
    found: Array = np.where(total(most) <= limit, 1, np.sqrt(share) * inside)
    return found.astype(delta.dtype)


def finalize(
    image: Array,
    flow: Array | None,
    delta: Array | None,
    flow_radius: Array,
    pixel_radius: Array,
    config: AttackConfig,
) -> tuple[Array, Array, Array, Array]:
    """Project the flow, truncate it to float16, render with it, project the perturbation, clip.

    Args:
        image: (batch, channel, height, width), float32 in [0, 1].
        flow: (batch, 2, height, width), pixels, or None where the attack has no flow.
        delta: (batch, channel, height, width), image units, or None where it has no perturbation.
        flow_radius: (batch,), of each image, pixels.
        pixel_radius: (batch,), of each image, image units.
        config: the composition and the norms of the budgets.

    Returns:
        The adversarial image, T(image, flow), the float16 flow, and delta as a result reports it.
    """
    batch, _, height, width = image.shape
    half = np.zeros((batch, 2, height, width), np.float16)
    if flow is not None:
        half = to_half(project(_finite(flow), flow_radius, config.flow.norm, (1,)))

    def render(picture: Array) -> Array:
        return picture if flow is None else warp(picture, half.astype(np.float32))

    warped = render(image)
    if delta is None:
        return warped, warped, half, np.zeros_like(image)
    delta = project(_finite(delta), pixel_radius, config.pixel.norm)
    if config.composition == "spatial-pixel":
        adversarial = np.clip(warped + delta, 0, 1)
        return adversarial, warped, half, adversarial - warped
    perturbed = np.clip(image + delta, 0, 1)
    return render(perturbed), warped, half, perturbed - image


def _finite(entries: Array) -> Array:
    return np.where(np.isfinite(entries), entries, np.float32(0))


def quantize(adversarial: Array, warped: Array, radius: Array) -> NDArray[np.uint8]:
    """Return the 8-bit level nearest `adversarial` within `radius` of `warped`; the one nearest
    `warped` if none is.

    Args:
        adversarial: (batch, channel, height, width), float32 in [0, 1].
        warped: as `adversarial`; T(image, flow).
        radius: (batch,), the pixel radius of each image.

    Returns:
        (batch, height, width, channel), uint8.
    """
    centre = warped.astype(np.float64)
    bound = radius.reshape(-1, 1, 1, 1).astype(np.float64)
    least, most = centre - bound, centre + bound
    np.subtract(np.maximum(least, 0, out=least), _SLACK, out=least)
    np.add(np.minimum(most, 1, out=most), _SLACK, out=most)
    np.ceil(np.multiply(least, 255, out=least), out=least)
    np.floor(np.multiply(most, 255, out=most), out=most)
    levels = np.multiply(adversarial, 255, dtype=np.float64)
    np.clip(np.rint(levels, out=levels), least, most, out=levels)
    none = least > most
    if none.any():
        levels[none] = np.rint(255 * centre[none])
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(0, 2, 3, 1))


def reached_levels(radius: float) -> int:
    """Return how far `quantize` goes from a pixel that is itself an 8-bit level, with an linf
    radius in image units: a whole number of levels, for a radius between two of them the lower.
    """
    return int(np.floor(255 * (float(np.float32(radius)) + _SLACK)))
