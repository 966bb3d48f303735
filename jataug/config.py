"""The configuration of the joint attack, and its presets."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

from .budget import FlowBudget, PixelBudget, radius_of
from .checks import check_integer
from .errors import BudgetError

__all__ = ["PRESETS", "AttackConfig", "Composition", "Keep", "Objective", "Order", "Start"]

Order = Literal["flow-pixel", "pixel-flow"]
Composition = Literal["spatial-pixel", "pixel-spatial"]
Objective = Literal["truth", "target", "margin"]
Start = Literal["random", "zero"]
Keep = Literal["last", "best"]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "claim-1": {
        "order": "flow-pixel",
        "composition": "spatial-pixel",
        "flow_objective": "margin",
        "pixel_objective": "target",
    },
    "claim-8": {
        "order": "pixel-flow",
        "composition": "pixel-spatial",
        "flow_objective": "target",
        "pixel_objective": "target",
    },
    "evaluation": {
        "order": "flow-pixel",
        "composition": "spatial-pixel",
        "flow_objective": "truth",
        "pixel_objective": "truth",
        "keep": "best",
    },
}


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """The joint attack of claims 1-14; the defaults are the preset "claim-1".

    Args:
        flow: budget of the flow field; radius 0 turns the flow off (plain PGD).
        pixel: budget of the additive perturbation; radius 0 turns it off (a pure flow attack).
        steps: number of iterations; 0 gives random joint augmentation.
        flow_step: step size in pixels. Defaults to radius * min(1, 2.5 / steps).
        pixel_step: step size for images in [0, 1]. Defaults to radius * min(1, 2.5 / steps).
        order: which of the two is updated first in an iteration (claims 1 and 8).
        composition: "spatial-pixel" renders clip(T(x, w) + d), "pixel-spatial" T(clip(x + d), w).
        flow_objective: what the flow ascends: "truth" CE(a, y), "target" -CE(a, t), "margin" CE(a,
            y) - CE(a, t).
        pixel_objective: what the pixels ascend.
        start: "random" inside the budgets, or "zero".
        keep: the "last" iterate, or the "best" per image (misclassified first, then the highest
            `ranked_objective`).
        simultaneous: make both updates from one gradient (Jacobi), without rendering in between.
        redraw_targets: draw new targets in every iteration instead of once per call.

    Raises:
        BudgetError: an option is outside its domain; the message names it.
    """

    flow: FlowBudget = field(default_factory=lambda: FlowBudget(0.3))
    pixel: PixelBudget = field(default_factory=lambda: PixelBudget("8/255"))
    steps: int = 10
    flow_step: float | None = None
    pixel_step: float | None = None
    order: Order = "flow-pixel"
    composition: Composition = "spatial-pixel"
    flow_objective: Objective = "margin"
    pixel_objective: Objective = "target"
    start: Start = "random"
    keep: Keep = "last"
    simultaneous: bool = False
    redraw_targets: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("flow", FlowBudget), ("pixel", PixelBudget)):
            if not isinstance(value := getattr(self, name), kind):
                raise BudgetError(f"{name}: expected a {kind.__name__}, got {value!r}")
        check_integer("steps", self.steps, 0, _MOST_STEPS, error=BudgetError)
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in get_args(choices):
                expected = ", ".join(get_args(choices))
                raise BudgetError(f"{name}: expected one of {expected}, got {value!r}")
        for name in ("simultaneous", "redraw_targets"):
            if not isinstance(value := getattr(self, name), bool):
                raise BudgetError(f"{name}: expected True or False, got {value!r}")
        for name in ("flow_step", "pixel_step"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, radius_of(value, name))

    @classmethod
    def preset(cls, name: str, **options: Any) -> Self:
        """Return the preset "claim-1", "claim-8" or "evaluation", with `options` on top.

        Raises:
            BudgetError: the preset is unknown.
        """
        if name not in PRESETS:
            raise BudgetError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
        return cls(**{**PRESETS[name], **options})

    def replace(self, **options: Any) -> Self:
        """Return a copy with `options` changed."""
        return dataclasses.replace(self, **options)

    def step_sizes(
        self, flow_radius: float, pixel_radius: float, steps: int
    ) -> tuple[float, float]:
        """Return the step sizes of flow (pixels) and perturbation (images in [0, 1])."""
        share = min(1.0, 2.5 / steps) if steps else 1.0
        flow = flow_radius * share if self.flow_step is None else self.flow_step
        pixel = pixel_radius * share if self.pixel_step is None else self.pixel_step
        return flow, pixel

    @property
    def branches(self) -> tuple[Literal["flow", "pixel"], ...]:
        """The active branches (radius > 0), in the order of their updates."""
        on = {"flow": self.flow.radius > 0, "pixel": self.pixel.radius > 0}
        order: tuple[Literal["flow", "pixel"], ...] = (
            ("flow", "pixel") if self.order == "flow-pixel" else ("pixel", "flow")
        )
        return tuple(name for name in order if on[name])

    @property
    def reported_objective(self) -> Objective:
        """The objective that a result reports as its loss: that of an iteration's last update."""
        if not self.branches:
            return "truth"
        return self.flow_objective if self.branches[-1] == "flow" else self.pixel_objective

    @property
    def targeted(self) -> bool:
        """Whether the objective of an active branch depends on targets ("target" or "margin")."""
        return any(getattr(self, f"{branch}_objective") != "truth" for branch in self.branches)

    @property
    def ranked_objective(self) -> Objective:
        """The objective that keep "best" ranks iterates by.

        It is the reported one, or "truth" with `redraw_targets`, because losses of different
        targets cannot be compared.
        """
        return "truth" if self.redraw_targets else self.reported_objective

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain JSON types; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            BudgetError: a key is unknown, or a value is outside its domain.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise BudgetError(f"attack configuration: unknown keys {', '.join(unknown)}")
        kinds = {"flow": FlowBudget, "pixel": PixelBudget}
        options: dict[str, Any] = dict(data)
        for name in options.keys() & kinds.keys():
            try:
                options[name] = kinds[name](**options[name])
            except TypeError:
                raise BudgetError(
                    f"{name}: expected the keys radius and norm, got {options[name]!r}"
                ) from None
        return cls(**options)


_MOST_STEPS = 1_000_000

_CHOICES = {
    "order": Order,
    "composition": Composition,
    "flow_objective": Objective,
    "pixel_objective": Objective,
    "start": Start,
    "keep": Keep,
}
