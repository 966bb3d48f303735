"""Rotation and translation (Engstrom et al., ICML 2019): the worst of k draws, or of a grid."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ...errors import BudgetError
from ...warp import warp
from ..models.model import Array, Calls
from .best_found import Best, View
from .perturbation import Context
from .square import uniform
from .tries import Rows

__all__ = ["Rotation", "turned"]

_STREAM = 102
"""The tensor id of the attack's random stream."""


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """The worst of many rotations about the image's centre with a translation, bilinear.

    Attributes:
        degrees: the largest rotation in either direction.
        pixels: the largest translation along each axis.
        draws: the number of random transformations; ignored if there is a grid.
        angles: the number of angles of the grid; 0 for no grid.
        shifts: the number of shifts of the grid along each axis.
        border: what is outside the image: "edge" repeats its border, "zero" is black.
    """

    degrees: float = 30.0
    pixels: float = 3.0
    draws: int = 10
    angles: int = 0
    shifts: int = 0
    border: str = "edge"
    needs_gradient: ClassVar[bool] = False
    targets: ClassVar[int] = 0
    threat: ClassVar[Literal["rotation"]] = "rotation"

    def __post_init__(self) -> None:
        if self.border not in ("edge", "zero"):
            raise BudgetError(f"rotate: expected the border edge or zero, got {self.border!r}")

    @property
    def tries(self) -> int:
        """Rows per image."""
        return self.angles * max(1, self.shifts) ** 2 or self.draws

    def parameters(self) -> dict[str, Any]:
        """Return the parameters for the report's table, as plain JSON types."""
        return dict(vars(self))

    def run(self, calls: Calls, rows: Rows, context: Context) -> Best:
        """Apply the transformation of each row's try, and measure the images."""
        best, where = Best(rows), np.arange(len(rows))
        angle, shift = self._grid(rows) if self.angles else self._drawn(rows, context)
        image = turned(rows.image, np.deg2rad(angle), shift, self.border)
        best.offer(where, View(image), calls.logits(image))
        return best

    def _drawn(self, rows: Rows, context: Context) -> tuple[Array, Array]:
        drawn = 2 * uniform(rows, context, _STREAM, 3) - 1
        return self.degrees * drawn[:, 0], self.pixels * drawn[:, 1:]

    def _grid(self, rows: Rows) -> tuple[Array, Array]:
        shifts = max(1, self.shifts)
        across, number = rows.restart % shifts, rows.restart // shifts
        down, turn = number % shifts, number // shifts
        angle = _spread(self.degrees, self.angles)[turn]
        places = _spread(self.pixels, shifts)
        return angle, np.stack([places[across], places[down]], axis=1)


def _spread(largest: float, count: int) -> Array:
    return np.linspace(-largest, largest, count) if count > 1 else np.zeros(1)


def turned(image: Array, angle: Array, shift: Array, border: str = "edge") -> Array:
    """Return the images rotated about their centre, then shifted.

    Args:
        image: (batch, channel, height, width).
        angle: (batch,), radians; a positive angle rotates the displayed image counter-clockwise.
        shift: (batch, 2), pixels, (dx, dy): the offset at which each pixel reads.
        border: "edge" or "zero".
    """
    pad = 1 if border == "zero" else 0
    padded = np.pad(image, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    height, width = padded.shape[2:]
    x, y = np.arange(width) - (width - 1) / 2, np.arange(height)[:, None] - (height - 1) / 2
    cos, sin = (f(angle).reshape(-1, 1, 1) for f in (np.cos, np.sin))
    dx = (cos - 1) * x - sin * y + shift[:, 0].reshape(-1, 1, 1)
    dy = sin * x + (cos - 1) * y + shift[:, 1].reshape(-1, 1, 1)
    moved = warp(padded, np.stack([dx, dy], axis=1).astype(np.float32))
    return np.clip(moved[:, :, pad : height - pad, pad : width - pad], 0, 1)
