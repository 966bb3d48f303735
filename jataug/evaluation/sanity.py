"""Do the figures hide masked gradients? Checks after Athalye et al. (ICML 2018) and Carlini et al.
(2019), each with a verdict.

Two attacks are compared image by image: among the images that only one of them breaks, the one
that should be stronger has to win, or lose by no more than chance (one-sided sign test, 1%).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .attacks.ascent import Ascent
from .attacks.losses import cotangent, value
from .attacks.restarts import Attack
from .attacks.square import Square
from .attacks.suite import Suite
from .models.model import Array, Calls
from .report.contents import Check, Sanity, Verdict
from .report.wording import TOO_FEW
from .runner import Clean, Runner

__all__ = [
    "PROBES",
    "Broken",
    "Compared",
    "compared",
    "gradients",
    "probes",
    "verdicts",
    "with_head",
]

_LEVEL = 0.01
"""Of the sign test."""

_STANDING = 0.01
"""The share of images that an unbounded attack may leave, though always one."""

_USABLE = 0.9
"""The share of images whose gradient has to be there, and to predict what a small step does."""

_STEP = 1 / 1024
"""Of the finite difference, image units: a quarter of an 8-bit level, less than any attack's."""

_FEWEST = 10
"""Images classified right; on fewer nothing can be told from a check that did not fail. (The sign
test cannot fail on fewer than seven.)
"""

_FACTOR = 5
"""What a step does is at least a fifth of what the gradient predicts, and at most five times. In
224 x 224 pixels curvature alone costs half of it: EfficientNet-Lite0 keeps 0.4 to 0.7.
"""

Broken = Mapping[str, Array]
"""Which images each probe broke: (images,), bool."""

PROBES = ("noise", "one step", "few steps", "many steps", "unbounded", "black box")


def probes(suite: Suite, pixel: float) -> dict[str, tuple[Attack, float]]:
    """Return the attacks that the checks compare, each with its pixel radius; all on pixels."""
    steps, queries = (50, 200) if suite == "quick" else (200, 1000)
    on: Any = {"branches": ("pixel",)}
    made: list[tuple[Attack, float]] = [
        (Ascent(**on, steps=0, restarts=10), pixel),
        (Ascent(**on, steps=1, start="zero"), pixel),
        (Ascent(**on, steps=5), pixel),
        (Ascent(**on, steps=steps), pixel),
        (Ascent(**on, steps=50, start="zero"), 1.0),
        (Square(steps=queries), pixel),
    ]
    return dict(zip(PROBES, made, strict=True))


@dataclass(frozen=True)
class Compared:
    """How many images only the weaker and only the stronger attack breaks, and how likely at least
    so many of the former are by chance.
    """

    only_weaker: int
    only_stronger: int
    chance: float


def compared(weaker: Array, stronger: Array) -> Compared:
    """Compare two attacks, both (images,), bool, by a one-sided sign test."""
    a, b = int((weaker & ~stronger).sum()), int((stronger & ~weaker).sum())
    chance = sum(math.comb(a + b, k) for k in range(a, a + b + 1)) / 2 ** (a + b)
    return Compared(a, b, chance)


def gradients(runner: Runner, clean: Clean) -> dict[str, Array]:
    """Return, per image, whether the gradient is zero, and what a small step along its sign does,
    relative to what it predicts: "zero" (images,) bool, "ratio" (images,) float64, NaN for 0 / 0.

    A model with straight-through gradients has no "ratio": between two roundings its slope is 0.
    """
    straight = getattr(runner.calls.model, "straight_through", False)
    zero, ratio = [], []
    runner.say("gradient", 0, 0)
    for where, images in runner.images.batches(runner.calls.batch_size):
        label = clean.label[where]
        target = _rival(clean.logits[where], label)
        found = _difference(runner.calls, images, label, target)
        zero.append(found[0])
        ratio.append(found[1])
        runner.say("gradient", where.stop, int((~np.concatenate(zero)).sum()))
    compared = {} if straight else {"ratio": np.concatenate(ratio)}
    return {"zero": np.concatenate(zero), **compared}


def _rival(logits: Array, label: Array) -> Array:
    others = np.where(np.isfinite(logits), logits, -np.inf).astype(np.float64)
    others[np.arange(len(label)), label] = -np.inf
    found: Array = others.argmax(1)
    return found


def _difference(calls: Calls, images: Array, label: Array, target: Array) -> tuple[Array, Array]:
    def seed(logits: Array, part: slice) -> Array:
        return cotangent("margin", logits, label[part], target[part])

    _, gradient = calls.gradient(images, seed)
    # Inside the box, so that the model sees no image it could not be given.
    ahead, behind = (np.clip(images + s * _STEP * np.sign(gradient), 0, 1) for s in (1, -1))
    predicted = (gradient.astype(np.float64) * (ahead - behind)).sum((1, 2, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        measured = value("margin", calls.logits(ahead), label, target) - value(
            "margin", calls.logits(behind), label, target
        )
        ratio = measured / predicted
    return np.asarray(~gradient.any(axis=(1, 2, 3))), ratio


def verdicts(
    clean: Clean,
    broken: Broken,
    gradient: Mapping[str, Array] | None,
    reason: str | None,
    transfers: Mapping[str, tuple[Array, Array]],
) -> Sanity:
    """Return all checks.

    Args:
        clean: what the model says without an attack.
        broken: by probe; those that could not run are missing.
        gradient: what `gradients` returned.
        reason: why probes are missing.
        transfers: by name of another model: which images its adversarial images break here, and
            which a direct attack with the same steps breaks.
    """
    right = clean.right
    checks = [
        _gradient_check(gradient, right, reason),
        _unbounded(broken.get("unbounded"), right, reason),
        *(_pair(name, title, broken, weak, strong, reason) for name, title, weak, strong in _PAIRS),
        *(_transfer(name, *pair) for name, pair in transfers.items()),
    ]
    if not transfers:
        title = "transferred images are not stronger than a direct attack"
        checks.append(Check("transfer", title, "skipped", "no other model was given", {}))
    checks = [_if_enough(check, int(right.sum())) for check in checks]
    judged = [check.verdict for check in checks if check.verdict != "skipped"]
    if not judged:
        return Sanity("none", tuple(checks))
    return Sanity("suspect" if "fail" in judged else "pass", tuple(checks))


def with_head(sanity: Sanity, hidden: str | None) -> Sanity:
    """Return the checks with one more that fails, where something hides the logits' gradient."""
    if hidden is None:
        return sanity
    title = "the attacks start from the logits"
    return Sanity("suspect", (Check("head", title, "fail", hidden, {}), *sanity.checks))


def _if_enough(check: Check, right: int) -> Check:
    """Return a check, its pass withdrawn where there are too few images."""
    if check.verdict != "pass" or right >= _FEWEST:
        return check
    said = f"{TOO_FEW}: {right} classified right, at least {_FEWEST} are wanted; {check.detail}"
    return replace(check, verdict="skipped", detail=said)


_PAIRS: Sequence[tuple[str, str, str, tuple[str, ...]]] = (
    ("steps", "more steps are not weaker", "few steps", ("many steps",)),
    ("one-step", "one step is not stronger than many", "one step", ("many steps",)),
    ("random", "random perturbations are not stronger than gradients", "noise", ("many steps",)),
    (
        "black-box", "a black box is not stronger than gradients", "black box",
        ("one step", "few steps", "many steps"),
    ),
)  # fmt: skip


_SAID = {"noise": "random perturbations", "black box": "the black box"}
"""Not the attack noise, which moves pixels too."""


def _pair(
    name: str, title: str, broken: Broken, weak: str, strong: tuple[str, ...], reason: str | None
) -> Check:
    if reason is not None or not {weak, *strong} <= broken.keys():
        return Check(name, title, "skipped", reason or "not run", {})
    united = np.logical_or.reduce([broken[s] for s in strong])
    said = _SAID.get(weak, weak)
    return _compare(name, title, said, " or ".join(strong), broken[weak], united)


def _transfer(name: str, there: Array, direct: Array) -> Check:
    title = f"images made on {name} are not stronger than a direct attack"
    return _compare("transfer", title, f"images from {name}", "many steps", there, direct)


def _compare(name: str, title: str, weak: str, strong: str, a: Array, b: Array) -> Check:
    found = compared(a, b)
    verdict: Verdict = "fail" if found.chance < _LEVEL else "pass"
    return Check(
        name,
        title,
        verdict,
        f"{int(a.sum())} broken by {weak}, {int(b.sum())} by {strong}; only by the former "
        f"{found.only_weaker}, only by the latter {found.only_stronger}: p = {found.chance:.2g}, "
        f"fails below {_LEVEL:g}",
        {
            "weaker": int(a.sum()),
            "stronger": int(b.sum()),
            "only_weaker": found.only_weaker,
            "only_stronger": found.only_stronger,
            "p": found.chance,
        },
    )


def _unbounded(broken: Array | None, right: Array, reason: str | None) -> Check:
    title = "an attack without a bound reaches accuracy 0"
    if broken is None or reason is not None:
        return Check("unbounded", title, "skipped", reason or "not run", {})
    standing, allowed = int((right & ~broken).sum()), max(1, math.floor(_STANDING * len(right)))
    return Check(
        "unbounded",
        title,
        "pass" if standing <= allowed else "fail",
        f"{standing} of {int(right.sum())} images withstand a pixel radius of 1 from the clean "
        f"image; at most {allowed} may",
        {"standing": standing, "allowed": allowed, "right": int(right.sum())},
    )


def _gradient_check(
    gradient: Mapping[str, Array] | None, right: Array, reason: str | None
) -> Check:
    title = "the gradient is there, and says what a small step does"
    if gradient is None or reason is not None or not right.any():
        return Check("gradient", title, "skipped", reason or "no image is classified right", {})
    zero = gradient["zero"][right]
    if "ratio" not in gradient:
        return _straight_check(title, zero)
    ratio = gradient["ratio"][right]
    agree = float(((ratio >= 1 / _FACTOR) & (ratio <= _FACTOR)).mean())
    return Check(
        "gradient",
        title,
        "pass" if agree >= _USABLE else "fail",
        f"zero for {zero.mean():.1%} of the images classified right; a step of 1/1024 does "
        f"between 1/{_FACTOR} and {_FACTOR} times what it predicts for {agree:.1%}, at least "
        f"{_USABLE:.0%} should be",
        {"zero": float(zero.mean()), "agree": agree, "wanted": _USABLE},
    )


def _straight_check(title: str, zero: Array) -> Check:
    return Check(
        "gradient",
        title,
        "pass" if 1 - zero.mean() >= _USABLE else "fail",
        f"zero for {zero.mean():.1%} of the images classified right, at most {1 - _USABLE:.0%} may "
        "be; straight-through, of a quantised model: what a small step does is not compared",
        {"zero": float(zero.mean()), "allowed": 1 - _USABLE},
    )
