"""From outcomes to the records of a report: accuracies, worst cases, images."""

from collections.abc import Mapping

import numpy as np

from ..attacks.restarts import Attack
from ..images import Images
from ..models.model import Array
from ..outcome import Outcome
from ..runner import Clean
from .contents import AttackRow, ImageRow, Rate, Threat, Worst

__all__ = ["attack_row", "image_rows", "rate", "worst"]

_WITHIN: Mapping[Threat, tuple[Threat, ...]] = {
    "pixel": ("pixel",),
    "flow": ("flow",),
    "joint": ("pixel", "flow", "joint"),
    "rotation": ("rotation",),
    "all": ("pixel", "flow", "joint", "rotation"),
}
"""The attacks that stay inside each set of changes: a pixel attack is a joint one without flow."""


def rate(right: Array) -> Rate:
    """Return the share of True: (images,), bool."""
    return Rate.from_counts(int(right.sum()), len(right))


def attack_row(
    name: str, attack: Attack, outcome: Outcome, clean: Clean, radii: tuple[float, float]
) -> AttackRow:
    """Return an attack's row of the table."""
    count = len(clean.label)
    flows, pixels = ("flow", "joint"), ("pixel", "joint")
    parameters = dict(attack.parameters())
    if attack.threat in flows:
        parameters["flow_radius"] = radii[0]
    if attack.threat in pixels:
        parameters["pixel_radius"] = radii[1]
    finite = outcome.loss[np.isfinite(outcome.loss)]
    return AttackRow(
        name,
        attack.threat,
        parameters,
        rate(outcome.prediction == clean.label),
        float(finite.mean()) if len(finite) else 0.0,
        outcome.forwards / count,
        outcome.gradients / count,
        outcome.seconds,
        outcome.largest_delta if attack.threat in pixels else None,
        outcome.longest_flow if attack.threat in flows else None,
    )


def worst(
    attacks: Mapping[str, Attack], outcomes: Mapping[str, Outcome], clean: Clean
) -> tuple[Worst, ...]:
    """Return, for each set of changes that was attacked, the images that nothing breaks."""
    found = []
    for threat, within in _WITHIN.items():
        names = tuple(name for name, attack in attacks.items() if attack.threat in within)
        if names:
            standing = clean.right.copy()
            for name in names:
                standing &= ~outcomes[name].broken
            found.append(Worst(threat, names, rate(standing)))
    return tuple(found)


def image_rows(
    images: Images,
    clean: Clean,
    outcomes: Mapping[str, Outcome],
    pixel: Array | None,
    flow: Array | None,
) -> tuple[ImageRow, ...]:
    """Return a row an image; `pixel` and `flow` are the smallest radii, NaN where there is none."""
    everything = {"clean": clean.outcome, **outcomes}
    return tuple(
        ImageRow(
            int(images.indices[i]),
            images.source.key(int(images.indices[i])),
            int(clean.label[i]),
            int(clean.outcome.prediction[i]),
            _first(clean, outcomes, i),
            tuple(name for name, o in outcomes.items() if clean.right[i] and o.broken[i]),
            {name: _number(o.loss[i]) for name, o in everything.items()},
            {name: int(o.prediction[i]) for name, o in everything.items()},
            None if pixel is None else _number(pixel[i]),
            None if flow is None else _number(flow[i]),
        )
        for i in range(images.count)
    )


def _first(clean: Clean, outcomes: Mapping[str, Outcome], i: int) -> str | None:
    if not clean.right[i]:
        return "clean"
    return next((name for name, outcome in outcomes.items() if outcome.broken[i]), None)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
