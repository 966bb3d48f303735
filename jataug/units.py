"""Radii and times as text."""

__all__ = ["duration", "radius_255", "typed_radius", "whole_levels"]


def whole_levels(radius: float) -> int | None:
    """Return a radius of images in [0, 1] in levels of 8 bits; None where that is no integer."""
    levels = round(255 * radius)
    return levels if radius == levels / 255 else None


def typed_radius(radius: float) -> str:
    """Return a radius of images in [0, 1] as a person types it: "8/255" where it is exactly that,
    otherwise a number that is read back as the same radius.
    """
    levels = whole_levels(radius)
    return repr(radius) if levels is None else f"{levels}/255"


def radius_255(radius: float) -> str:
    """Return a radius of images in [0, 1] in levels of 8 bits, to four digits: "12.75/255"."""
    return f"{255 * radius:.4g}/255"


def duration(seconds: float) -> str:
    """Return a time: "0.52 s", "12 s", "2 min 05 s", "1 h 03 min", "3 d 04 h"."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    for size, unit, smaller, below in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller:02d} {below}"
    return f"{whole} s"
