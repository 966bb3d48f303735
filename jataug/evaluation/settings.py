"""What an evaluation is to do, checked: the part of its plan that is not a model or a source."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..budget import FlowBudget, PixelBudget
from ..checks import check_integer
from ..errors import BudgetError
from .attacks.perturbation import Context
from .attacks.restarts import Attack
from .attacks.suite import Suite

__all__ = ["Settings"]

_CURVE = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)
_MAP: Mapping[Suite, tuple[float, ...]] = {
    "quick": (0.0, 0.5, 1.0, 2.0),
    "strong": (0.0, 0.25, 0.5, 1.0, 1.5, 2.0),
}
_STEPS: Mapping[Suite, int] = {"quick": 20, "strong": 50}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Attacks by name, budgets, and what else is measured.

    Attributes:
        attacks: in the order of the table.
        suite: decides how thorough curves and checks are.
        flow, pixel: the budgets; the curves go up to four times each radius.
        seed: of all random draws.
        measured: "float" images, or "uint8".
        curves: whether curves, map and smallest radii are measured.
        sanity: whether the checks against masked gradients are.
        rounds: bisections of the smallest radii.
        tf32: whether CUDA rounds the products of ONNX models to TF32.
    """

    attacks: Mapping[str, Attack]
    suite: Suite
    flow: FlowBudget
    pixel: PixelBudget
    seed: int
    measured: Literal["float", "uint8"] = "float"
    curves: bool = True
    sanity: bool = True
    rounds: int = 5
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.pixel.norm != "linf":
            raise BudgetError(f"pixel: expected the norm linf, got {self.pixel.norm!r}")
        if not (self.flow.radius or self.pixel.radius):
            raise BudgetError("expected a flow or a pixel radius above 0, got 0 for both")
        if self.measured not in ("float", "uint8"):
            raise BudgetError(f"measured: expected float or uint8, got {self.measured!r}")
        check_integer("seed", self.seed, 0, 2**64 - 1, error=BudgetError)

    @property
    def radii(self) -> tuple[float, float]:
        """Flow in pixels, pixel in image units."""
        return self.flow.radius, self.pixel.radius

    @property
    def context(self) -> Context:
        """Norms and seed."""
        return Context(self.seed, self.flow.norm, self.pixel.norm)

    @property
    def steps(self) -> int:
        """Of the attacks behind curves and map."""
        return _STEPS[self.suite]

    @property
    def flow_radii(self) -> tuple[float, ...]:
        """Of the flow curve, ascending; empty where the budget is 0."""
        return tuple(share * self.flow.radius for share in _CURVE if self.flow.radius)

    @property
    def pixel_radii(self) -> tuple[float, ...]:
        """Of the pixel curve, likewise; none above 1, where every image is allowed."""
        radii = (share * self.pixel.radius for share in _CURVE if self.pixel.radius)
        return tuple(sorted({min(1.0, radius) for radius in radii}))

    @property
    def map_radii(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Flow and pixel radii of the map."""
        shares = _MAP[self.suite]
        flow, pixel = self.radii
        return tuple(s * flow for s in shares), tuple(min(1.0, s * pixel) for s in shares)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, for the plan; TF32 only where it is used, as older plans do."""
        attacks = [{"name": n, **attack.parameters()} for n, attack in self.attacks.items()]
        apart = {"attacks", "flow", "pixel"} | (set() if self.tf32 else {"tf32"})
        return {
            **{k: v for k, v in vars(self).items() if k not in apart},
            "attacks": attacks,
            "flow": vars(self.flow),
            "pixel": vars(self.pixel),
        }
