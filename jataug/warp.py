"""The backward bilinear warp in numpy, by gathers: what finalisation renders with and verify checks
with.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["warp", "warp_range"]

Array = NDArray[Any]


def warp(image: Array, flow: Array) -> Array:
    """Return T(x, w)(p) = x(p + w(p)), coordinates clamped to the image; zero flow is the identity,
    bit for bit.

    Args:
        image: (batch, channel, height, width); its dtype is the precision of the result.
        flow: (batch, 2, height, width), pixels, (dx, dy); shared by the channels.
    """
    # floor and fraction come from w, not from p + w: adding p would cost the fraction its low bits.
    # In float16 the fraction of a small negative flow would be rounded away.
    flow = flow.astype(np.result_type(flow.dtype, np.float32), copy=False)
    whole = np.floor(flow)
    fraction = (flow - whole).astype(image.dtype)
    left, top = whole[:, 0].astype(np.int64), whole[:, 1].astype(np.int64)
    upper = _lerp(_sample(image, left, top), _sample(image, left + 1, top), fraction[:, :1])
    lower = _lerp(_sample(image, left, top + 1), _sample(image, left + 1, top + 1), fraction[:, :1])
    return _lerp(upper, lower, fraction[:, 1:])


def warp_range(image: Array, radius: float) -> tuple[Array, Array]:
    """Return the least and the greatest value that T(x, w) takes at each pixel over all |dx|, |dy|
    <= radius.

    Bilinear interpolation is extreme at the corners of each cell, so the corners of the square and
    the whole pixels
    inside it are all that has to be looked at.
    """
    inside = np.arange(-np.floor(radius), np.floor(radius) + 1)
    stops = np.unique(np.concatenate([[-radius], inside, [radius]]))
    batch, _, height, width = image.shape
    low, high = image.copy(), image.copy()
    for dy in stops:
        for dx in stops:
            flow = np.empty((batch, 2, height, width), image.dtype)
            flow[:, 0], flow[:, 1] = dx, dy
            moved = warp(image, flow)
            np.minimum(low, moved, out=low)
            np.maximum(high, moved, out=high)
    return low, high


def _sample(image: Array, dx: Array, dy: Array) -> Array:
    batch, channel, height, width = image.shape
    column = np.clip(np.arange(width) + dx, 0, width - 1)
    row = np.clip(np.arange(height)[:, None] + dy, 0, height - 1)
    places = (row * width + column).reshape(batch, height * width)
    flat = image.reshape(batch, channel, height * width)
    taken = np.empty_like(flat)
    # Image by image: one index serves all channels, which take_along_axis would spell out.
    for pixels, place, out in zip(flat, places, taken, strict=True):
        np.take(pixels, place, axis=1, out=out, mode="clip")
    return taken.reshape(image.shape)


def _lerp(start: Array, end: Array, fraction: Array) -> Array:
    # Exact at both ends: the near end is the one that the difference is added to.
    difference = end - start
    mixed: Array = np.where(
        fraction < 0.5, start + fraction * difference, end - (1 - fraction) * difference
    )
    return mixed
