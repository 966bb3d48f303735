"""Gradient ascent of flow and pixels in turn: noise, FGSM, PGD, flow and joint attacks."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ...config import Composition
from ..models.model import Array, Calls
from .best_found import Best
from .losses import Objective, cotangent
from .perturbation import Branch, Context, State
from .tries import Rows

__all__ = ["Ascent"]


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """The joint attack of docs/method.md. The best of all iterates is kept for each image.

    Attributes:
        branches: the branches in the order of their updates. The image is rendered in between.
        steps: iterations, with one gradient per branch; 0 is random augmentation.
        restarts: random starts per target.
        targets: the number of most likely wrong classes to attack in turn; 0 for an objective
            without a target.
        objective: the objective to ascend.
        composition: "spatial-pixel" or "pixel-spatial".
        start: "random" within the budgets, or "zero".
    """

    branches: tuple[Branch, ...]
    steps: int
    restarts: int = 1
    targets: int = 0
    objective: Objective = "truth"
    composition: Composition = "spatial-pixel"
    start: Literal["random", "zero"] = "random"
    needs_gradient: ClassVar[bool] = True

    @property
    def threat(self) -> Literal["pixel", "flow", "joint"]:
        """The kind of change that it makes."""
        return "joint" if len(self.branches) > 1 else self.branches[0]

    @property
    def tries(self) -> int:
        """Rows per image."""
        return self.restarts * max(1, self.targets)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters for the report's table, as plain JSON types."""
        return {**vars(self), "branches": list(self.branches)}

    def run(self, calls: Calls, rows: Rows, context: Context) -> Best:
        """Attack every row. Rows stop as soon as their image is broken."""
        best, where = Best(rows), np.arange(len(rows))
        state = State(rows, context, self.branches, self.composition)
        if self.start == "random":
            state.randomize()
        share = np.float32(min(1.0, 2.5 / self.steps) if self.steps else 1.0)
        for step in range(self.steps * len(self.branches)):
            branch = self.branches[step % len(self.branches)]
            logits, gradient = self._gradient(calls, rows.take(where), state)
            best.offer(where, state.view, logits)
            still = best.open(where)
            if not still.all():
                where, state, gradient = where[still], state.take(still), gradient[still]
            if not len(where):
                return best
            radius = rows.flow if branch == "flow" else rows.pixel
            state.move(branch, gradient, share * radius[where])
        best.offer(where, state.view, calls.logits(state.image))
        return best

    def _gradient(self, calls: Calls, rows: Rows, state: State) -> tuple[Array, Array]:
        return calls.gradient(
            state.image,
            lambda logits, part: cotangent(
                self.objective, logits, rows.label[part], rows.target[part]
            ),
        )
