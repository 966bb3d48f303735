"""How numbers are written: percentages, intervals, radii, times."""

import re
from collections.abc import Mapping
from typing import Any

from ....units import duration as spaced_duration
from ....units import radius_255
from ..contents import Rate

__all__ = ["NOTHING", "budgets", "count_of", "duration", "interval", "percent", "plain", "radius"]

NOTHING = "\N{EN DASH}"
"""What stands where there is no number."""

_NO_BREAK = "\N{NO-BREAK SPACE}"


def percent(share: float) -> str:
    """Return a share in percent, with as many decimals as it takes not to look like 0 or 100."""
    decimals = 1
    while 0 < share < 1 and float(f"{100 * share:.{decimals}f}") in (0.0, 100.0):
        decimals += 1
    return f"{100 * share:.{decimals}f}%"


def interval(rate: Rate) -> str:
    """Return the 95% interval: "83.4 to 94.0%"."""
    return f"{percent(rate.low)[:-1]}\N{EN DASH}{percent(rate.high)}"


def count_of(rate: Rate) -> str:
    """Return "115 of 128"."""
    return f"{rate.correct}{_NO_BREAK}of{_NO_BREAK}{rate.total}"


def radius(value: float, unit: str) -> str:
    """Return a radius in its unit, "image" (in levels of 8 bits) or "pixels"."""
    if unit == "image":
        return radius_255(value)
    return f"{value:.3g}{_NO_BREAK}px"


def budgets(flow: Mapping[str, Any], pixel: Mapping[str, Any]) -> list[str]:
    """Return both budgets with their norms, those of radius 0 left out."""
    found = []
    if flow.get("radius"):
        found.append(f"flow {radius(flow['radius'], 'pixels')} ({flow.get('norm')})")
    if pixel.get("radius"):
        size = float(pixel["radius"])
        linf = pixel.get("norm") == "linf"
        shown = f"{radius_255(size)} = {size:.4g}" if linf else f"{size:.4g}"
        found.append(f"pixel {shown} ({pixel.get('norm')})")
    return found


def duration(seconds: float) -> str:
    """Return a time, each number with its unit on one line: "0.52 s", "2 min 05 s"."""
    return re.sub(r"(\d) ", rf"\1{_NO_BREAK}", spaced_duration(seconds))


def plain(value: Any) -> str:
    """Return a setting or a number as a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return "none" if value is None else str(value)
