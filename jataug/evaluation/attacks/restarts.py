"""Runs all tries of an attack on a batch of images, several tries at once as rows."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from ..models.model import Array, Calls
from .best_found import Best
from .perturbation import Context
from .tries import Rows

__all__ = ["Attack", "run_tries"]

_FOLD = 4
"""The most rows of one wave, as a multiple of the batch size."""


class Attack(Protocol):
    """The interface of an attack, as `run_tries` calls it.

    Attributes:
        needs_gradient: whether it needs the model's gradient.
        targets: the number of target classes that its tries go through, or 0.
        tries: rows per image: restarts, targets or transformations.
    """

    needs_gradient: ClassVar[bool]

    @property
    def targets(self) -> int: ...
    @property
    def tries(self) -> int: ...
    @property
    def threat(self) -> Literal["none", "pixel", "flow", "joint", "rotation"]: ...

    def parameters(self) -> Mapping[str, Any]:
        """Return the parameters for the report's table, as plain JSON types."""

    def run(self, calls: Calls, rows: Rows, context: Context) -> Best:
        """Attack every row. Rows of an image that is already broken may stop."""


def run_tries(attack: Attack, calls: Calls, rows: Rows, logits: Array, context: Context) -> Best:
    """Return the best image of every row over all tries of the attack.

    The first try runs on every image. The others run on images that withstand it, as many at once
    as fit four batches. The result of a try depends only on the image and the try's number, so
    grouping them affects only the time.

    Args:
        attack: the attack.
        calls: the model.
        rows: one per image.
        logits: (rows, classes), of the clean images; they rank the target classes.
        context: norms and seed.
    """
    best, todo, tried = Best(rows), np.arange(len(rows)), 0
    ranked = _ranked(logits, rows.label)
    targets = min(attack.targets, ranked.shape[1])
    tries = attack.tries // max(1, attack.targets) * max(1, targets)
    while tried < tries and len(todo):
        room = max(1, _FOLD * calls.batch_size // len(todo))
        numbers = np.arange(tried, min(tries, tried + (room if tried else 1)))
        where = np.repeat(todo, len(numbers))
        batch = _tries(rows.take(where), np.tile(numbers, len(todo)), ranked[where], targets)
        found = attack.run(calls, batch, context)
        for k in range(len(numbers)):
            part = np.arange(len(todo)) * len(numbers) + k
            best.put(todo, found.view.take(part), found.margin[part])
        tried += len(numbers)
        todo = todo[best.margin[todo] <= 0]
    return best


def _ranked(logits: Array, label: Array) -> Array:
    """Return the classes other than the label, the most likely first: (rows, classes - 1)."""
    scores = np.where(np.isfinite(logits), logits, -np.inf).astype(np.float64)
    scores[np.arange(len(label)), label] = np.inf
    order: Array = np.argsort(-scores, axis=1, kind="stable")
    # A label with an infinite score may tie with others, so it need not come first.
    rest = np.stack([row[row != y] for row, y in zip(order, label, strict=True)])
    return rest


def _tries(rows: Rows, number: Array, ranked: Array, targets: int) -> Rows:
    if not targets:
        return rows.replace(restart=number)
    target = ranked[np.arange(len(rows)), number % targets]
    return rows.replace(restart=number // targets, target=target)
