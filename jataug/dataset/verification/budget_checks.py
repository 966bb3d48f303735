"""Whether stored images are inside their budgets: float64, on the files, told from nothing but the
source.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...config import AttackConfig
from ...finalize import reached_levels
from ...warp import warp, warp_range

__all__ = ["Budget", "BudgetCheck", "Pairs", "level_note"]

Array = NDArray[Any]
Budget = Literal["checked", "bounded", "not checked"]

_SLACK = 2e-6
"""Rounding of float32 renderings near 1, and of the level search."""

_HALF = 0.5 / 255

_NOTES: dict[Budget, str] = {
    "checked": "",
    "bounded": "a necessary condition: the flow was not saved",
    "not checked": "a warp enlarges the l2 norm of what was added before it",
}


def level_note(config: AttackConfig, *, float_saved: bool) -> str:
    """Return how much of the pixel radius 8-bit images reach, where it is no whole number of
    levels; "" where it is, or where the budget is not linf.

    Args:
        config: the budgets.
        float_saved: whether the images before quantisation are stored too.
    """
    radius, reached = 255 * config.pixel.radius, reached_levels(config.pixel.radius)
    if config.pixel.norm != "linf" or abs(radius - reached) <= 255 * _SLACK:
        return ""
    text = f"a pixel radius of {radius:g}/255 reaches {reached}/255 in 8-bit images"
    if config.flow.radius:
        text += (
            " where the warped pixel is itself a level, as in flat regions, and at most "
            f"{max(radius, 0.5):g}/255 elsewhere"
        )
    if float_saved:
        return f"{text}; the float images use all of it"
    return f"{text}; save floats (--save-float) to use all of it"


@dataclass(frozen=True, eq=False)
class Pairs:
    """Images beside what they were made from.

    Attributes:
        stored: (batch, height, width, channel), uint8.
        clean: as `stored`; None where the source is not at hand, and the flow is all that can be
            measured.
        flow: (batch, 2, height, width), or None where it was not saved.
        exact: (batch, channel, height, width), float32; None where it was not saved.
    """

    stored: Array
    clean: Array | None = None
    flow: Array | None = None
    exact: Array | None = None


class BudgetCheck:
    """Measures batches and remembers the worst.

    With the saved flow, or without a flow, |a - T(x, w)| itself is measured. Without the saved flow
    the distance of a from everything that T(x, w) can be inside the flow budget is: a necessary
    condition, "bounded".

    Args:
        config: the budgets.
        flow_saved: whether flows are at hand.

    Attributes:
        mode: what can be said about the pixel budget.
        note: why that is not everything; empty where it is.
        worst_pixel: the largest (measured - allowed), image units; negative inside the budget.
        largest_pixel: the largest distance of a stored 8-bit image that was measured, image units.
        allowed_pixel: what it may be, rounding to 8 bits included.
        worst_flow: the longest flow vector (l2) or component (linf), pixels; None where flows are
            not at hand.
    """

    def __init__(self, config: AttackConfig, *, flow_saved: bool) -> None:
        self._config = config
        self.mode: Budget = _mode(config, flow_saved)
        self.note = _NOTES[self.mode]
        self.worst_pixel: float | None = None
        self.largest_pixel: float | None = None
        self.allowed_pixel: float | None = None
        self.worst_flow: float | None = None

    def check(self, pairs: Pairs) -> list[tuple[int, str]]:
        """Return (position in the batch, what is wrong) for every image outside its budget."""
        problems = self._check_flow(pairs.flow) if pairs.flow is not None else []
        if self.mode == "not checked" or pairs.clean is None:
            return problems
        low, high = self._reachable(_planes(pairs.clean), pairs.flow)
        stored = _planes(pairs.stored)
        problems += self._check_pixels(stored, low, high, _HALF, "image")
        if pairs.exact is not None:
            exact = pairs.exact.astype(np.float64)
            problems += self._check_pixels(exact, low, high, 0.0, "float image")
            problems += _check_rounding(stored, exact)
        return problems

    def _reachable(self, clean: Array, flow: Array | None) -> tuple[Array, Array]:
        if self._config.flow.radius == 0:
            return clean, clean
        if flow is None:
            return warp_range(clean, self._config.flow.radius)
        # float64 before the warp: one minus a small half-precision fraction is not a half.
        vectors = flow.astype(np.float64)
        warped = warp(clean, np.where(np.isfinite(vectors), vectors, 0))
        return warped, warped

    def _check_flow(self, flow: Array) -> list[tuple[int, str]]:
        vectors = flow.astype(np.float64)
        if self._config.flow.norm == "l2":
            length = np.sqrt(np.square(vectors).sum(axis=1)).max(axis=(1, 2))
        else:
            length = np.abs(vectors).max(axis=(1, 2, 3))
        radius = self._config.flow.radius
        # The attack compares in float32, where the radius itself is rounded.
        limit = max(radius, float(np.float32(radius)))
        self.worst_flow = max(self.worst_flow or 0.0, float(length.max(initial=0.0)))
        return [
            (int(row), f"expected a flow of at most {radius:g} pixels, got {length[row]:.6g}")
            for row in np.flatnonzero(~(length <= limit))
        ]

    def _check_pixels(
        self, image: Array, low: Array, high: Array, rounding: float, what: str
    ) -> list[tuple[int, str]]:
        distance = np.maximum(np.maximum(low - image, image - high), 0)
        radius, size = self._config.pixel.radius, float(np.prod(image.shape[1:]))
        if self._config.pixel.norm == "linf":
            measured = distance.max(axis=(1, 2, 3))
            allowed = max(radius, rounding) + _SLACK
        else:
            measured = np.sqrt(np.square(distance).sum(axis=(1, 2, 3)))
            allowed = radius + np.sqrt(size) * (rounding or _SLACK)
        if rounding:
            self.largest_pixel = max(self.largest_pixel or 0.0, float(measured.max(initial=0.0)))
            self.allowed_pixel = float(allowed)
        worst = float((measured - allowed).max(initial=-np.inf))
        self.worst_pixel = max(worst, -np.inf if self.worst_pixel is None else self.worst_pixel)
        return [
            (
                int(row),
                f"expected the {what} within {allowed:.6g} of the source, got {measured[row]:.6g}",
            )
            for row in np.flatnonzero(~(measured <= allowed))
        ]


def _mode(config: AttackConfig, flow_saved: bool) -> Budget:
    moved, changed = config.flow.radius > 0, config.pixel.radius > 0
    if config.pixel.norm == "l2" and config.composition == "pixel-spatial" and moved and changed:
        return "not checked"  # a warp enlarges an l2 norm; only the perturbation itself would tell
    return "checked" if flow_saved or not moved else "bounded"


def _check_rounding(stored: Array, exact: Array) -> list[tuple[int, str]]:
    away = np.abs(stored - exact).max(axis=(1, 2, 3))
    return [
        (int(row), f"expected the image within a level of its float image, got {away[row]:.6g}")
        for row in np.flatnonzero(~(away <= 1 / 255 + _SLACK))
    ]


def _planes(images: Array) -> Array:
    return images.transpose(0, 3, 1, 2) / 255.0
