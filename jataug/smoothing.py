"""Label smoothing (claim 19) in either of the two conventions in use."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

__all__ = ["Convention", "Smoothing", "as_convention", "check_fraction"]

Convention = Literal["authors", "torch"]


@dataclass(frozen=True)
class Smoothing:
    """How the label y of K classes becomes a distribution.

    The authors' convention at s is torch's at s K / (K - 1).

    Args:
        amount: s in [0, 1].
        convention: "authors" (of claim 19): 1 - s for y, s / (K - 1) for each other class;
            "torch" (`torch.nn.CrossEntropyLoss(label_smoothing=s)`): 1 - s + s / K for y, s / K
            for each other class.

    Raises:
        DataError: the amount is outside [0, 1], or the convention is unknown.
    """

    amount: float
    convention: Convention = "authors"

    def __post_init__(self) -> None:
        object.__setattr__(self, "convention", as_convention(self.convention))
        check_fraction("smoothing", self.amount)

    def table(self, classes: int) -> NDArray[np.float32]:
        """Return the distribution of every label: (classes, classes), float32, each of sum 1."""
        return np.stack([self.of(label, classes) for label in range(classes)])

    def of(self, label: int, classes: int) -> NDArray[np.float32]:
        """Return the distribution of one label: (classes,), float32, of sum 1."""
        authors = self.convention == "authors"
        shared = self.amount / (classes - 1 if authors else classes)
        smoothed = np.full(classes, shared, np.float32)
        smoothed[label] = 1 - self.amount + (0 if authors else shared)
        return smoothed


def as_convention(value: Any) -> Convention:
    """Return a convention; "common", as version 0.1 called torch's in loaders, is deprecated.

    Raises:
        DataError: it is neither.
    """
    if value == "common":
        warnings.warn(
            'convention="common" is deprecated: write convention="torch"',
            DeprecationWarning,
            stacklevel=6,  # the caller of a loader
        )
        value = "torch"
    if value not in get_args(Convention):
        expected = ", ".join(get_args(Convention))
        raise DataError(f"convention: expected one of {expected}, got {value!r}")
    found: Convention = value
    return found


def check_fraction(name: str, value: Any) -> None:
    """Refuse what is not a number in [0, 1]."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise DataError(f"{name}: expected a number in [0, 1], got {value!r}")
