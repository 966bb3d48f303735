"""Compares a runtime's results with the reference results, and holds the tolerances."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jataug.artifact import Manifest

from .call import steps_of

__all__ = ["MOVED", "VALUES", "Difference", "difference"]

Array = NDArray[Any]

VALUES = 2e-5
"""Largest difference of a loss or a logit, relative to the largest of them and to 1. Measured on
four networks, the demo's to EfficientNet-Lite0: float32 2e-6 at most, a mantissa of 10 bits (TF32)
1e-4 to 5e-3, of 7 bits (bfloat16) 1e-3 to 1e-1.
"""

MOVED = 0.05
"""Largest `moved`. One iteration: the part of the pixels that it put elsewhere; its direction is
the gradient's, and anything where that is within rounding of zero (measured: 1.6% at most; with a
wrong kernel over 10%). Several: their pixels are anywhere in networks where rounding grows, so what
they gained of the loss, as the golden runtime measures it, relative to what the golden state gained
(measured: 0.4% at most).
"""

_ELSEWHERE = 0.01
"""As a fraction of a step."""


@dataclass(frozen=True)
class Difference:
    """From the golden results.

    Attributes:
        values: of loss and logits; see VALUES.
        moved: how much of the update is another one; form step: the part of the flow vectors or of
            the pixels, whichever is more; else the part of the loss that was gained.
    """

    values: float
    moved: float

    @property
    def is_rounding(self) -> bool:
        """Whether it is within the tolerances; a number that is none is not."""
        return self.values <= VALUES and self.moved <= MOVED


def difference(
    found: Mapping[str, Array],
    golden: Mapping[str, Array],
    manifest: Manifest,
    loss_of: Callable[[Mapping[str, Array]], Array],
) -> Difference:
    """Compare the outputs of one call.

    Args:
        found: by a runtime.
        golden: the right ones.
        manifest: of the artifact.
        loss_of: returns the loss of an outgoing state, as the golden runtime measures it.
    """
    if any(found[name].shape != array.shape for name, array in golden.items()):
        return Difference(np.inf, 1.0)
    values = max(_apart(found[name], golden[name]) for name in ("loss", "logits"))
    if manifest.form != "step":
        return Difference(values, _lost(loss_of(found), loss_of(golden), golden["loss"]))
    steps = steps_of(manifest)
    moved = [
        _moved(found[name], golden[name], steps[branch])
        for branch, name in (("flow", "next_flow"), ("pixel", "next_delta"))
        if branch in manifest.config.branches
    ]
    return Difference(values, max(moved))


def _apart(found: Array, golden: Array) -> float:
    if (np.isfinite(found) != np.isfinite(golden)).any():
        return float("inf")
    kept = np.isfinite(golden)
    scale = max(1.0, float(np.abs(golden[kept]).max(initial=0)))
    return float(np.abs(np.subtract(found, golden, dtype=np.float64)[kept]).max(initial=0)) / scale


def _moved(found: Array, golden: Array, step: float) -> float:
    apart = np.abs(np.subtract(found, golden, dtype=np.float64)).max(axis=1)
    return float((~(apart <= _ELSEWHERE * step)).mean())


def _lost(found: Array, golden: Array, start: Array) -> float:
    gained = np.abs(np.subtract(golden, start, dtype=np.float64)).sum()
    part = np.abs(np.subtract(found, golden, dtype=np.float64)).sum() / max(gained, 1e-12)
    return float(part) if np.isfinite(part) else float("inf")
