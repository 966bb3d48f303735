"""The Square attack (Andriushchenko et al., ECCV 2020), linf: random squares, no gradient."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ...errors import BudgetError
from ...result import finite_rows
from ...streams import words
from ..models.model import Array, Calls
from .best_found import Best, View
from .losses import margin
from .perturbation import Context
from .tries import Rows

__all__ = ["Square", "uniform"]

_STREAM = 101
"""The tensor id of the attack's random stream."""

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The queries, out of 10,000, after which the area of the squares halves."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """Random search: each step sets a square to a corner of the budget, and keeps it if it helps.

    Attributes:
        steps: forward passes per try.
        restarts: number of tries.
        area: share of the image that the first squares cover.
    """

    steps: int
    restarts: int = 1
    area: float = 0.8
    needs_gradient: ClassVar[bool] = False
    targets: ClassVar[int] = 0
    threat: ClassVar[Literal["pixel"]] = "pixel"
    composition: ClassVar[Literal["spatial-pixel"]] = "spatial-pixel"

    @property
    def tries(self) -> int:
        """Rows per image."""
        return self.restarts

    def parameters(self) -> dict[str, Any]:
        """Return the parameters for the report's table, as plain JSON types."""
        return dict(vars(self))

    def run(self, calls: Calls, rows: Rows, context: Context) -> Best:
        """Attack every row. Rows stop as soon as their image is broken.

        Raises:
            BudgetError: the pixel norm is not linf.
        """
        if context.pixel_norm != "linf":
            raise BudgetError(f"square: expected the pixel norm linf, got {context.pixel_norm}")
        best, where = Best(rows), np.arange(len(rows))
        channel, height, width = rows.image.shape[1:]
        drawn = uniform(rows, context, _STREAM, channel * width + (2 + channel) * self.steps)
        stripes = _signs(drawn[:, : channel * width]).reshape(-1, channel, 1, width)
        moves = drawn[:, channel * width :].reshape(len(rows), self.steps, 2 + channel)
        image = _corner(rows, np.broadcast_to(stripes, rows.image.shape))
        held = np.full(len(rows), -np.inf)
        for step in range(self.steps):
            trial = image
            if step:
                side = self._side(step, height, width)
                trial = _squared(rows.take(where), image, moves[where, step], side)
            logits = calls.logits(trial)
            reached = np.where(finite_rows(logits), margin(logits, rows.label[where]), -np.inf)
            best.put(where, View(trial, None, trial - rows.image[where]), reached)
            image = np.where((reached >= held).reshape(-1, 1, 1, 1), trial, image)
            held = np.maximum(reached, held)
            still = best.open(where)
            where, image, held = where[still], image[still], held[still]
            if not len(where):
                break
        return best

    def _side(self, step: int, height: int, width: int) -> int:
        scaled = step * 10_000 / self.steps
        area = self.area / 2 ** sum(scaled > mark for mark in _HALVINGS)
        side = max(1, round(math.sqrt(area * height * width)))
        return min(height, width, side)


def uniform(rows: Rows, context: Context, stream: int, count: int) -> Array:
    """Return numbers in [0, 1) from each row's own stream: (rows, count), float64."""
    drawn = [
        words(context.seed, int(i), stream, count, restart=int(k))
        for i, k in zip(rows.index, rows.restart, strict=True)
    ]
    found: Array = (np.stack(drawn) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return found


def _signs(drawn: Array) -> Array:
    return np.where(drawn < 0.5, np.float32(-1), np.float32(1))


def _corner(rows: Rows, signs: Array) -> Array:
    """Return the images with each entry moved by its radius, in the direction of `signs`."""
    moved: Array = np.clip(rows.image + signs * rows.pixel.reshape(-1, 1, 1, 1), 0, 1)
    return moved


def _squared(rows: Rows, image: Array, drawn: Array, side: int) -> Array:
    """Return the images, each with one randomly placed square moved to a corner of the budget."""
    height, width = image.shape[2:]
    top = np.floor(drawn[:, :1] * (height - side + 1))
    left = np.floor(drawn[:, 1:2] * (width - side + 1))
    row, column = np.arange(height) - top, np.arange(width) - left
    inside = ((row >= 0) & (row < side))[:, :, None] & ((column >= 0) & (column < side))[:, None, :]
    signs = _signs(drawn[:, 2:])[:, :, None, None]
    return np.where(inside[:, None], _corner(rows, signs), image)
