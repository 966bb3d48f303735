"""The backward bilinear warp in numpy. Finalisation renders with it, and verify checks with it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["warp", "warp_range"]

Array = NDArray[Any]

_AT_ONCE = 1 << 15
"""Entries of an image batch that are warped at a time, so that they stay in the cache."""


def warp(image: Array, flow: Array) -> Array:
    """Return T(x, w)(p) = x(p + w(p)), with coordinates clamped to the image.

    A zero flow is the identity, bit for bit.

    Args:
        image: (batch, channel, height, width); its dtype is the precision of the result.
        flow: (batch, 2, height, width), (dx, dy) in pixels; the same for all channels.
    """
    out = np.empty_like(image)
    # A few images at a time: each value is read four times, and then from the cache.
    step = max(1, _AT_ONCE // max(1, image[0].size)) if len(image) else 1
    for first in range(0, len(image), step):
        part = slice(first, first + step)
        _warp(image[part], flow[part], out[part])
    return out


def warp_range(image: Array, radius: float) -> tuple[Array, Array]:
    """Return the least and greatest value of T(x, w) at each pixel over all |dx|, |dy| <= radius.

    Bilinear interpolation is extreme at the corners of each cell, so only whole pixels inside the
    square and points on its border that line up with them are examined.
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


def _warp(image: Array, flow: Array, out: Array) -> None:
    # floor and fraction come from w, not from p + w: adding p would cost the fraction its low bits.
    # In float16 the fraction of a small negative flow would be rounded away.
    flow = flow.astype(np.result_type(flow.dtype, np.float32), copy=False)
    whole = np.floor(flow)
    fraction = (flow - whole).astype(image.dtype)
    # From the nearer corner to the farther one: exact at both ends, and no choice is left to make
    # once the places are known.
    beyond = fraction >= 0.5
    np.subtract(1, fraction, out=fraction, where=beyond)
    corner, height, width = whole.astype(np.intp), image.shape[2], image.shape[3]
    column = corner[:, 0] + np.arange(width)
    row = corner[:, 1] + np.arange(height)[:, None]
    near_column, far_column = (
        np.clip(column + side, 0, width - 1) for side in (beyond[:, 0], ~beyond[:, 0])
    )
    near_row, far_row = (
        np.clip(row + side, 0, height - 1) * width for side in (beyond[:, 1], ~beyond[:, 1])
    )
    across, down = fraction[:, :1], fraction[:, 1:]
    near = _lerp(image, near_row + near_column, near_row + far_column, across, out)
    far = _lerp(image, far_row + near_column, far_row + far_column, across, np.empty_like(image))
    far -= near
    far *= down
    near += far


def _lerp(image: Array, near: Array, far: Array, fraction: Array, out: Array) -> Array:
    start, end = _sample(image, near, out), _sample(image, far, np.empty_like(image))
    end -= start
    end *= fraction
    start += end
    return start


def _sample(image: Array, places: Array, out: Array) -> Array:
    batch, channel, height, width = image.shape
    flat = image.reshape(batch, channel, height * width)
    taken = out.reshape(batch, channel, height * width)
    # Image by image: one index serves all channels, which take_along_axis would spell out.
    for pixels, place, one in zip(flat, places.reshape(batch, -1), taken, strict=True):
        np.take(pixels, place, axis=1, out=one, mode="clip")
    return out
