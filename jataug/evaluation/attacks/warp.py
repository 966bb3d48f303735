"""The warp in numpy with hand-written derivatives. It renders as jataug.warp does, by gathers."""

import numpy as np

from ..models.model import Array

__all__ = ["Warped"]


class Warped:
    """T(image, flow), and its derivatives (docs/method, The warp).

    Args:
        image: (batch, channel, height, width), floating.
        flow: (batch, 2, height, width), pixels, (dx, dy).
    """

    def __init__(self, image: Array, flow: Array) -> None:
        batch, channel, height, width = image.shape
        self._shape = image.shape
        column, row = np.arange(width), np.arange(height)[:, None]
        x, fx = _split(flow[:, 0], column, width)
        y, fy = _split(flow[:, 1], row, height)
        self._fx, self._fy = (f[:, None].astype(image.dtype) for f in (fx, fy))
        places = {
            (i, j): (np.clip(y + j, 0, height - 1) * width + np.clip(x + i, 0, width - 1))
            for i in (0, 1)
            for j in (0, 1)
        }
        self._places = {corner: p.reshape(batch, height * width) for corner, p in places.items()}
        flat = image.reshape(batch, channel, height * width)
        self._corners = {c: _gather(flat, p).reshape(image.shape) for c, p in self._places.items()}

    @property
    def image(self) -> Array:
        """The warped image; jataug.warp.warp, bit for bit."""
        c = self._corners
        upper, lower = (_lerp(c[0, j], c[1, j], self._fx) for j in (0, 1))
        return _lerp(upper, lower, self._fy)

    def flow_gradient(self, cotangent: Array) -> Array:
        """Return the gradient of sum(cotangent * T) by the flow: (batch, 2, height, width).

        At whole offsets it is the right-sided derivative. Beyond the border it is 0, and on the
        border it points inward.
        """
        c, fx, fy = self._corners, self._fx, self._fy
        by_x = (c[1, 0] - c[0, 0]) * (1 - fy) + (c[1, 1] - c[0, 1]) * fy
        by_y = (c[0, 1] - c[0, 0]) * (1 - fx) + (c[1, 1] - c[1, 0]) * fx
        # Pixels are subtracted first. Multiplying first would leave rounding noise in flat regions.
        return np.stack([(cotangent * slope).sum(1) for slope in (by_x, by_y)], axis=1)

    def image_gradient(self, cotangent: Array) -> Array:
        """Return the gradient of sum(cotangent * T) by the image: the exact adjoint."""
        batch, channel, height, width = self._shape
        count = height * width
        start = (np.arange(batch * channel) * count).reshape(batch, channel, 1)
        total = np.zeros(batch * channel * count, np.float64)
        for (i, j), place in self._places.items():
            weight = (self._fx if i else 1 - self._fx) * (self._fy if j else 1 - self._fy)
            into = (start + place[:, None]).reshape(-1)
            total += np.bincount(into, (cotangent * weight).reshape(-1), len(total))
        return total.reshape(self._shape).astype(cotangent.dtype)


def _split(d: Array, place: Array, size: int) -> tuple[Array, Array]:
    """Return the near pixel's coordinate and the fraction; on the far border, the cell inside."""
    # Floor and fraction come from w, because adding p first would drop the fraction's low bits.
    whole = np.floor(d)
    near = place + whole.astype(np.int64)
    inside = (d == whole) & (near == size - 1) if size > 1 else np.zeros(d.shape, bool)
    return near - inside, d - whole + inside


def _gather(flat: Array, places: Array) -> Array:
    taken = np.empty_like(flat)
    for pixels, place, out in zip(flat, places, taken, strict=True):
        np.take(pixels, place, axis=1, out=out, mode="clip")
    return taken


def _lerp(start: Array, end: Array, fraction: Array) -> Array:
    difference = end - start
    near, far = start + fraction * difference, end - (1 - fraction) * difference
    mixed: Array = np.where(fraction < 0.5, near, far)
    return mixed
