"""Auto-PGD (Croce and Hein, ICML 2020), linf: it halves its step when progress stops."""

import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ...budget import PixelBudget
from ...errors import BudgetError
from ...streams import pixel_start
from ..models.model import Array, Calls
from .best_found import Best, View
from .losses import Objective, cotangent, value
from .perturbation import Context
from .tries import Rows

__all__ = ["Apgd"]

_MOMENTUM, _SHARE = 0.75, 0.75
"""The paper's alpha, and rho: the share of steps between checkpoints that must raise the loss."""


@dataclass(frozen=True, kw_only=True)
class Apgd:
    """Auto-PGD on pixels. The best of all iterates is kept.

    Attributes:
        steps: gradients per try.
        restarts: random starts per target.
        targets: the number of most likely wrong classes to attack in turn.
        objective: the objective to ascend.
    """

    steps: int
    restarts: int = 1
    targets: int = 0
    objective: Objective = "truth"
    needs_gradient: ClassVar[bool] = True
    threat: ClassVar[Literal["pixel"]] = "pixel"
    composition: ClassVar[Literal["spatial-pixel"]] = "spatial-pixel"

    @property
    def tries(self) -> int:
        """Rows per image."""
        return self.restarts * max(1, self.targets)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters for the report's table, as plain JSON types."""
        return dict(vars(self))

    def run(self, calls: Calls, rows: Rows, context: Context) -> Best:
        """Attack every row. Rows stop as soon as their image is broken.

        Raises:
            BudgetError: the pixel norm is not linf.
        """
        if context.pixel_norm != "linf":
            raise BudgetError(f"apgd: expected the pixel norm linf, got {context.pixel_norm}")
        best, walk = Best(rows), _Walk(rows, context)
        checkpoints = _checkpoints(self.steps)
        for step in range(self.steps):
            logits, gradient = self._gradient(calls, rows.take(walk.where), walk.image)
            best.offer(walk.where, walk.view, logits)
            here = rows.take(walk.where)
            walk.arrive(value(self.objective, logits, here.label, here.target), gradient)
            walk.keep(best.open(walk.where))
            if not len(walk.where):
                return best
            if step in checkpoints:
                walk.check(checkpoints[step])
            walk.advance(first=step == 0)
        best.offer(walk.where, walk.view, calls.logits(walk.image))
        return best

    def _gradient(self, calls: Calls, rows: Rows, image: Array) -> tuple[Array, Array]:
        return calls.gradient(
            image,
            lambda logits, part: cotangent(
                self.objective, logits, rows.label[part], rows.target[part]
            ),
        )


def _checkpoints(steps: int) -> dict[int, int]:
    """Return the steps at which the step size is checked, with the steps since the check before."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    marks = [math.ceil(share * steps) for share in shares]
    return {after: after - before for before, after in itertools.pairwise(marks)}


class _Walk:
    """The state of every row: its image, its best image, and its step size.

    Attributes:
        where: positions of the rows that are not finished.
        image: their current images: (rows, channel, height, width).
    """

    def __init__(self, rows: Rows, context: Context) -> None:
        self.where = np.arange(len(rows))
        self._clean, radius = rows.image, rows.pixel.reshape(-1, 1, 1, 1)
        self._low, self._high = (
            np.maximum(rows.image - radius, 0),
            np.minimum(rows.image + radius, 1),
        )
        shape = rows.image.shape[1:]
        starts = [
            pixel_start(context.seed, int(i), shape, PixelBudget(float(r)), restart=int(k))
            for i, k, r in zip(rows.index, rows.restart, rows.pixel, strict=True)
        ]
        self.image = np.clip(rows.image + np.stack(starts), self._low, self._high)
        self._before = self._best_image = self.image
        self._gradient = self._best_gradient = np.zeros_like(self.image)
        self._loss = self._best = self._best_then = np.full(len(rows), -np.inf)
        self._step = 2 * rows.pixel
        self._halved = np.zeros(len(rows), bool)
        self._paid = np.zeros(len(rows), np.int64)

    @property
    def view(self) -> View:
        """The images, and their perturbations."""
        return View(self.image, None, self.image - self._clean)

    def arrive(self, loss: Array, gradient: Array) -> None:
        """Record the loss and gradient of the current images."""
        self._paid = self._paid + (loss > self._loss)
        self._loss, self._gradient = loss, gradient
        higher = loss > self._best
        self._best = np.where(higher, loss, self._best)
        wins = higher.reshape(-1, 1, 1, 1)
        self._best_image = np.where(wins, self.image, self._best_image)
        self._best_gradient = np.where(wins, gradient, self._best_gradient)

    def check(self, stretch: int) -> None:
        """Halve the step and return to the best image in rows without enough progress.

        That is, too few steps raised the loss, or neither the step nor the best loss changed since
        the last checkpoint.
        """
        stuck = ~self._halved & (self._best <= self._best_then)
        self._halved = (self._paid < _SHARE * stretch) | stuck
        self._step = np.where(self._halved, self._step / 2, self._step)
        back = self._halved.reshape(-1, 1, 1, 1)
        self.image = np.where(back, self._best_image, self.image)
        self._before = np.where(back, self._best_image, self._before)
        self._gradient = np.where(back, self._best_gradient, self._gradient)
        self._loss = np.where(self._halved, self._best, self._loss)
        self._best_then, self._paid = self._best, np.zeros_like(self._paid)

    def advance(self, first: bool) -> None:
        """Step along the gradient's sign, with momentum except in the first step."""
        share = np.float32(1.0 if first else _MOMENTUM)
        step = self._step.astype(np.float32).reshape(-1, 1, 1, 1)
        ahead = np.clip(self.image + step * np.sign(self._gradient), self._low, self._high)
        moved = (
            self.image + share * (ahead - self.image) + (1 - share) * (self.image - self._before)
        )
        self._before, self.image = self.image, np.clip(moved, self._low, self._high)

    def keep(self, still: Array) -> None:
        """Drop the other rows."""
        if not still.all():
            for name, held in vars(self).items():
                setattr(self, name, held[still])
