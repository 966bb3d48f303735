"""Labels for training: hard, or smoothed by one of two conventions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..smoothing import Convention, Smoothing

__all__ = ["Convention", "Smoothing", "hard"]


def hard(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return labels (batch,), int64, of hard ones, or of distributions (batch, classes)."""
    found = labels.argmax(axis=1) if labels.ndim == 2 else labels
    return found.astype(np.int64) if found.dtype.kind in "iu" else found
