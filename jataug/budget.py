"""Attack budgets: the limits of a flow field and of a pixel perturbation, each with its unit."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from .errors import BudgetError

__all__ = ["FLOAT32_MAX", "FlowBudget", "Norm", "PixelBudget", "radius_of"]

Norm = Literal["l2", "linf"]

FLOAT32_MAX = float.fromhex("0x1.fffffep+127")
"""Largest finite float32, the type that attack graphs compute in."""


def radius_of(value: float | int | str, name: str) -> float:
    """Return `value` as a finite float >= 0; a string may be a fraction such as "8/255".

    Raises:
        BudgetError: `value` is negative, not finite, or not a number.
    """
    try:
        number = float(Fraction(value.strip()) if isinstance(value, str) else value)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        raise BudgetError(
            f"{name}: expected a number or a fraction such as 8/255, got {value!r}"
        ) from None
    if isinstance(value, bool) or not 0 <= number <= FLOAT32_MAX:
        raise BudgetError(f"{name}: expected a finite number >= 0, got {value!r}")
    return number


def _check_norm(norm: str, name: str) -> None:
    if norm not in get_args(Norm):
        raise BudgetError(f"{name}: expected the norm l2 or linf, got {norm!r}")


@dataclass(frozen=True)
class FlowBudget:
    """The limit of a flow field: how far it may move each pixel.

    Args:
        radius: radius in pixels, at any image size; a number, or a fraction as a string. 0 turns
            the flow off.
        norm: "l2" limits the length of each pixel's vector (claim 6), "linf" each of its two
            components.

    Raises:
        BudgetError: the radius is negative, not finite or not a number; the norm is unknown.
    """

    radius: float
    norm: Norm = "l2"

    def __init__(self, radius: float | str = 0.0, norm: Norm = "l2") -> None:
        object.__setattr__(self, "radius", radius_of(radius, "flow radius"))
        _check_norm(norm, "flow budget")
        object.__setattr__(self, "norm", norm)


@dataclass(frozen=True)
class PixelBudget:
    """The limit of an additive perturbation.

    Args:
        radius: radius for images in [0, 1]; a number, or a fraction as a string such as "8/255". 0
            turns the perturbation off.
        norm: "linf" limits every entry, "l2" the 2-norm over the whole image.

    Raises:
        BudgetError: the radius is negative, not finite, not a number, or, with "linf", above 1; the
            norm is unknown.
    """

    radius: float
    norm: Norm = "linf"

    def __init__(self, radius: float | str = 0.0, norm: Norm = "linf") -> None:
        object.__setattr__(self, "radius", radius_of(radius, "pixel radius"))
        _check_norm(norm, "pixel budget")
        object.__setattr__(self, "norm", norm)
        if norm == "linf" and self.radius > 1:
            raise BudgetError(
                f"pixel radius: expected at most 1, because images are in [0, 1], got {radius!r}; "
                "write 8-bit levels as a fraction such as 8/255"
            )
