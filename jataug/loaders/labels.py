"""Labels for training: hard, or smoothed by one of two conventions."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

__all__ = ["Convention", "Smoothing", "hard"]

Convention = Literal["authors", "common"]


@dataclass(frozen=True)
class Smoothing:
    """How the label y of K classes becomes a distribution.

    Args:
        amount: s in [0, 1].
        convention: "authors" (of claim 19): 1 - s for y, s / (K - 1) for each other class;
            "common" (`torch.nn.CrossEntropyLoss(label_smoothing=s)`): 1 - s + s / K for y, s / K
            for each other class.

    Raises:
        DataError: the amount is outside [0, 1], or the convention is unknown.
    """

    amount: float
    convention: Convention = "authors"

    def __post_init__(self) -> None:
        if self.convention not in get_args(Convention):
            expected = ", ".join(get_args(Convention))
            raise DataError(f"convention: expected one of {expected}, got {self.convention!r}")
        check_fraction("smoothing", self.amount)

    def of(self, label: int, classes: int) -> NDArray[np.float32]:
        """Return the distribution of one label: (classes,), float32, of sum 1."""
        shared = self.amount / (classes - 1 if self.convention == "authors" else classes)
        smoothed = np.full(classes, shared, np.float32)
        own = 1 - self.amount + (0 if self.convention == "authors" else shared)
        smoothed[label] = own
        return smoothed


def hard(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return labels (batch,), int64, of hard ones, or of distributions (batch, classes)."""
    found = labels.argmax(axis=1) if labels.ndim == 2 else labels
    return found.astype(np.int64) if found.dtype.kind in "iu" else found


def check_fraction(name: str, value: Any) -> None:
    """Refuse what is not a number in [0, 1]."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise DataError(f"{name}: expected a number in [0, 1], got {value!r}")
