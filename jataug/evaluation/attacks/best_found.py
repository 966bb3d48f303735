"""The best image found for each row, and which rows are finished because their image is broken."""

from dataclasses import dataclass

import numpy as np

from ...result import finite_rows
from ..models.model import Array
from .losses import margin
from .tries import Rows

__all__ = ["Best", "View"]


@dataclass(frozen=True, eq=False)
class View:
    """Attacked images, with their flow and perturbation.

    Attributes:
        image: (rows, channel, height, width), float32 in [0, 1].
        flow: (rows, 2, height, width), pixels, or None if the attack has no flow.
        delta: in the shape of `image`, the perturbation that the budget bounds, or None if the
            attack has none.
    """

    image: Array
    flow: Array | None = None
    delta: Array | None = None

    def take(self, where: Array) -> "View":
        """Return the rows at these positions."""
        flow = None if self.flow is None else self.flow[where]
        return View(self.image[where], flow, None if self.delta is None else self.delta[where])

    def kept_clean(self, where: Array, image: Array) -> "View":
        """Return the view with the unchanged clean images `image` in the rows of a mask."""

        def zero(values: Array | None) -> Array | None:
            return None if values is None else np.where(_column(where), 0, values)

        return View(np.where(_column(where), image, self.image), zero(self.flow), zero(self.delta))


def _column(mask: Array) -> Array:
    return mask.reshape(-1, 1, 1, 1)


class Best:
    """The best result of every row: misclassified first, then the highest margin.

    Attributes:
        image, flow, delta: the best view of each row. Flow and perturbation are zero at first.
        margin: (rows,), float64; the best other logit minus the label's, -inf at first.
    """

    def __init__(self, rows: Rows) -> None:
        self._label, self._index = rows.label, rows.index
        count, _, height, width = rows.image.shape
        self.image = rows.image.copy()
        self.delta = np.zeros_like(rows.image)
        self.flow = np.zeros((count, 2, height, width), np.float32)
        self.margin = np.full(count, -np.inf)

    def offer(self, where: Array, view: View, logits: Array) -> None:
        """Keep the views of the rows at `where` that beat the best so far.

        A view whose logits are not finite never does.
        """
        with np.errstate(invalid="ignore"):
            reached = margin(logits, self._label[where])
        reached[~finite_rows(logits)] = -np.inf
        self.put(where, view, reached)

    def put(self, where: Array, view: View, reached: Array) -> None:
        """Do the same as `offer`, given the margins (rows,) instead of logits."""
        wins = reached > self.margin[where]
        rows = where[wins]
        self.image[rows] = view.image[wins]
        self.flow[rows] = 0 if view.flow is None else view.flow[wins]
        self.delta[rows] = 0 if view.delta is None else view.delta[wins]
        self.margin[rows] = reached[wins]

    def open(self, where: Array) -> Array:
        """Return a mask of the rows at `where` whose image no row has broken yet."""
        broken = self._index[self.margin > 0]
        found: Array = ~np.isin(self._index[where], broken)
        return found

    @property
    def view(self) -> View:
        """The best image, flow and perturbation of all rows."""
        return View(self.image, self.flow, self.delta)
