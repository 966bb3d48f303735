"""The text that jataug verify prints about budgets, in the units that budgets are given in."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from jataug.units import whole_levels

if TYPE_CHECKING:
    from jataug.dataset import VerifyReport

__all__ = ["budget_lines"]

_ROUNDING = 1e-5
"""Image units. A smaller excess over the radius is float32 rounding and is not mentioned."""


def budget_lines(report: "VerifyReport") -> Iterator[str]:
    """Yield the verdict and the used part of each budget, one line each."""
    yield f"budget: {_verdict(report)}"
    if report.largest_change is not None and report.allowed_change is not None:
        yield f"  pixels: {_pixels(report, report.largest_change, report.allowed_change)}"
    if report.level_note:
        yield f"  levels: {report.level_note}"
    if report.worst_flow is not None:
        flow = report.attack.flow
        what = "longest vector" if flow.norm == "l2" else "largest component"
        found = _number(report.worst_flow, exceeded=_flow_exceeded(report))
        yield f"  flow: {what} {found} px, allowed {flow.radius:g} px"


def _verdict(report: "VerifyReport") -> str:
    if report.budget == "not checked" and not _flow_exceeded(report):
        return f"not checked: {report.budget_note}"
    if (report.worst_pixel_excess or 0) > 0 or _flow_exceeded(report):
        return "exceeded"
    whose = "every image that could be compared" if report.problems else "every image"
    if report.budget == "checked":
        return f"kept by {whose}"
    return (
        f"kept by {whose}, as far as this can be checked without the flows: a change that some "
        "allowed flow explains is not counted. Use generate --save-flow for an exact check"
    )


def _flow_exceeded(report: "VerifyReport") -> bool:
    radius = report.attack.flow.radius
    return report.worst_flow is not None and report.worst_flow > radius * (1 + 1e-6)


def _pixels(report: "VerifyReport", largest: float, allowed: float) -> str:
    pixel, exceeded = report.attack.pixel, (report.worst_pixel_excess or 0) > 0
    unit = _unit(pixel.radius)
    counted = " that no allowed flow explains" if report.budget == "bounded" else ""
    norm = " (l2 norm)" if pixel.norm == "l2" else ""
    text = f"largest change{counted} {unit(largest, exceeded)}, allowed {unit(pixel.radius, False)}"
    if allowed > pixel.radius + _ROUNDING:
        text += f", with the rounding to 8 bits {unit(allowed, False)}"
    return text + norm


def _unit(radius: float) -> Callable[[float, bool], str]:
    """Return a formatter of changes: in parts of 255 if the radius is a whole number of them."""
    if whole_levels(radius) is not None:
        return lambda value, exceeded: f"{_number(255 * value, exceeded=exceeded)}/255"
    return lambda value, exceeded: _number(value, exceeded=exceeded)


def _number(value: float, *, exceeded: bool) -> str:
    return f"{value:.6g}" if exceeded else f"{value:.4g}"
