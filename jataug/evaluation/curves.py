"""Attacks at many radii: curves, the map over both radii, and every image's smallest radius.

A larger radius allows every change that a smaller one allows. So an image that is broken at one
radius counts as broken at all larger ones and is not attacked again, and no curve rises.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .attacks.ascent import Ascent
from .attacks.perturbation import Branch
from .attacks.restarts import run_tries
from .attacks.tries import Rows
from .models.model import Array
from .outcome import measure
from .report.contents import Curve, CurvePoint, Map, Minimal, Rate
from .runner import Clean, Runner

__all__ = ["curve", "heat_map", "minimal", "sweep_curve", "sweep_map"]


def sweep_curve(
    runner: Runner,
    clean: Clean,
    branch: Branch,
    radii: Sequence[float],
    steps: int,
    rounds: int,
) -> Mapping[str, Array]:
    """Return which images are broken at each radius, and the smallest radius found for each.

    Args:
        runner: the runner of the model.
        clean: the model's results without an attack.
        branch: "flow" or "pixel"; the radius of the other one is 0.
        radii: ascending, above 0.
        steps: steps of the attack.
        rounds: bisections between the last radius that an image withstood and the first that broke
            it. In one batch, every image has its own radius.

    Returns:
        "broken" (images, radii), bool; "radius" (images,), float64: NaN if no radius was found, 0
        if the image is misclassified without an attack.
    """
    attack = Ascent(branches=(branch,), steps=steps)

    def one(where: slice, images: Array) -> dict[str, Array]:
        trial = _Trial(runner, clean, where, images)
        broken = np.zeros((len(images), len(radii)), bool)
        done, low = ~clean.right[where], np.zeros(len(images))
        high = np.where(done, 0.0, np.nan)
        for k, radius in enumerate(radii):
            fresh = trial(attack, branch, ~done, np.full(len(images), radius))
            high[fresh], done = radius, done | fresh
            low[~done], broken[:, k] = radius, done
        found = done & (high > 0)
        for _ in range(rounds):
            middle = (low + high) / 2
            fresh = trial(attack, branch, found, np.where(found, middle, 0.0))
            high, low = np.where(fresh, middle, high), np.where(found & ~fresh, middle, low)
        return {"broken": broken, "radius": high}

    return _gathered(runner, f"{branch} curve", one)


def sweep_map(
    runner: Runner, clean: Clean, flow: Sequence[float], pixel: Sequence[float], steps: int
) -> Mapping[str, Array]:
    """Return which images are broken at each pair of radii: "broken" (images, flow, pixel)."""

    def one(where: slice, images: Array) -> dict[str, Array]:
        trial = _Trial(runner, clean, where, images)
        broken = np.zeros((len(images), len(flow), len(pixel)), bool)
        for i, w in enumerate(flow):
            for j, d in enumerate(pixel):
                done = ~clean.right[where]
                done |= broken[:, i - 1, j] if i else False
                done |= broken[:, i, j - 1] if j else False
                on = {"flow": w > 0, "pixel": d > 0}
                branches: tuple[Branch, ...] = tuple(b for b in _BRANCHES if on[b])
                if branches:
                    attack = Ascent(branches=branches, steps=steps)
                    done = done | trial.both(attack, ~done, w, d)
                broken[:, i, j] = done
        return {"broken": broken}

    return _gathered(runner, "map", one)


_BRANCHES: tuple[Branch, ...] = ("flow", "pixel")


class _Trial:
    """One batch of images, attacked repeatedly at different radii."""

    def __init__(self, runner: Runner, clean: Clean, where: slice, images: Array) -> None:
        self._runner, self._logits = runner, clean.logits[where]
        index = runner.images.indices[where]
        self._rows = Rows.first_tries(images, clean.label[where], index, 0.0, 0.0)

    def __call__(self, attack: Ascent, branch: Branch, who: Array, radius: Array) -> Array:
        """Attack the images of the mask `who`, each at its own radius; return which are broken."""
        return self._run(attack, who, self._rows.replace(**{branch: radius.astype(np.float32)}))

    def both(self, attack: Ascent, who: Array, flow: float, pixel: float) -> Array:
        """Attack the images of the mask `who` with a flow and a pixel radius; return the same."""
        ones = np.ones(len(self._rows), np.float32)
        return self._run(attack, who, self._rows.replace(flow=flow * ones, pixel=pixel * ones))

    def _run(self, attack: Ascent, who: Array, rows: Rows) -> Array:
        broken = np.zeros(len(rows), bool)
        part = np.flatnonzero(who)
        if len(part):
            taken, runner = rows.take(part), self._runner
            found = run_tries(attack, runner.calls, taken, self._logits[part], runner.context)
            broken[part] = measure(runner.calls, taken, found.view, runner.levels).broken
        return broken


def _gathered(
    runner: Runner, part: str, one: Callable[[slice, Array], dict[str, Array]]
) -> dict[str, Array]:
    found: list[dict[str, Array]] = []
    runner.say(part, 0, 0)
    for where, images in runner.images.batches(runner.calls.batch_size):
        found.append(one(where, images))
        standing = sum(
            int((~f["broken"].reshape(len(f["broken"]), -1)[:, -1]).sum()) for f in found
        )
        runner.say(part, where.stop, standing)
    return {name: np.concatenate([f[name] for f in found]) for name in found[0]}


def curve(
    branch: Branch, radii: Sequence[float], arrays: Mapping[str, Array], clean: Clean, steps: int
) -> Curve:
    """Return the record of a curve. Its first point is the clean accuracy, at radius 0."""
    standing = [clean.right, *(~column for column in arrays["broken"].T)]
    points = [
        CurvePoint(float(r), Rate.from_counts(int(right.sum()), len(right)))
        for r, right in zip([0.0, *radii], standing, strict=True)
    ]
    return Curve(_ATTACK[branch], _UNIT[branch], _parameters(steps), tuple(points))


def heat_map(
    flow: Sequence[float], pixel: Sequence[float], arrays: Mapping[str, Array], steps: int
) -> Map:
    """Return the record of the map."""
    broken = arrays["broken"]
    accuracy = tuple(
        tuple(
            Rate.from_counts(int((~broken[:, i, j]).sum()), len(broken)) for j in range(len(pixel))
        )
        for i in range(len(flow))
    )
    return Map("joint", _parameters(steps), tuple(flow), tuple(pixel), accuracy)


def minimal(
    branch: Branch, radii: Sequence[float], arrays: Mapping[str, Array], clean: Clean, rounds: int
) -> Minimal | None:
    """Return the record of the smallest radii, or None if no clean image is classified right."""
    radius = arrays["radius"][clean.right]
    if not len(radius):
        return None
    ordered = np.sort(np.where(np.isfinite(radius), radius, np.inf))
    quartiles = [float(ordered[max(0, -(-len(ordered) * k // 4) - 1)]) for k in (1, 2, 3)]
    low, median, high = (q if np.isfinite(q) else None for q in quartiles)
    found = int(np.isfinite(radius).sum())
    return Minimal(
        _ATTACK[branch], _UNIT[branch], float(radii[-1]), rounds, found, len(radius), low, median,
        high
    )  # fmt: skip


_ATTACK: Mapping[Branch, str] = {"flow": "flow", "pixel": "pgd"}
_UNIT: Any = {"flow": "pixels", "pixel": "image"}


def _parameters(steps: int) -> dict[str, Any]:
    return {"steps": steps, "restarts": 1, "objective": "truth"}
