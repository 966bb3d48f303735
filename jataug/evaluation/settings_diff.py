"""How another evaluation differs from the one that was begun, in the options that decide it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..dataset.plan_diff import Difference, differing, differing_sources
from ..units import typed_radius

__all__ = ["plan_differences"]

Stored = Mapping[str, Any]
"""A plan as it is stored, or a part of it."""


def plan_differences(there: Stored, asked: Stored) -> list[Difference]:
    """Return how a stored plan differs from the one that is asked for."""
    return [
        *differing("version of jataug", there.get("jataug"), asked.get("jataug")),
        *differing("identity=", there.get("identity"), asked.get("identity")),
        *_models("MODEL", there.get("models", ()), asked.get("models", ())),
        *_models("--transfer", there.get("transfer", ()), asked.get("transfer", ())),
        *_settings(there.get("settings", {}), asked.get("settings", {})),
        *differing("--limit", _limit(there), _limit(asked)),
        *differing("--batch-size", there.get("batch_size"), asked.get("batch_size")),
        *differing("--resize", there.get("resize"), asked.get("resize")),
        *differing("--crop", there.get("crop"), asked.get("crop")),
        *_skipped(there, asked),
        *_labels(there, asked),
        *differing_sources(there.get("source", {}), asked.get("source", {})),
    ]


def _models(name: str, there: Sequence[Stored], asked: Sequence[Stored]) -> Iterator[Difference]:
    names = [[model.get("name", "") for model in models] for models in (there, asked)]
    if names[0] != names[1]:
        yield Difference(name, names[0], names[1])
        return
    for before, now in zip(there, asked, strict=True):
        if before.get("sha256") != now.get("sha256"):
            text = f"the model {now.get('name')} is another one"
            yield Difference(name, "", "", text=text)
        first, second = (model.get("preprocessing") or {} for model in (before, now))
        for key in {**first, **second}:
            yield from differing(f"--{key}", first.get(key), second.get(key))


def _settings(there: Stored, asked: Stored) -> Iterator[Difference]:
    yield from differing("--suite", there.get("suite"), asked.get("suite"))
    before, now = there.get("attacks", []), asked.get("attacks", [])
    names = [[attack.get("name", "") for attack in attacks] for attacks in (before, now)]
    # Another suite has other attacks, with other options.
    if there.get("suite") == asked.get("suite"):
        yield from differing("--attacks", *names)
        if names[0] == names[1] and before != now:
            yield Difference("--attacks", "", "", text="the options of an attack are others")
    for name in ("flow", "pixel"):
        first, second = (settings.get(name) or {} for settings in (there, asked))
        radii = [budget.get("radius") or 0.0 for budget in (first, second)]
        typed = map(typed_radius, radii) if name == "pixel" else radii
        yield from differing(f"--{name}", *typed)
        yield from differing(f"--{name}-norm", first.get("norm"), second.get("norm"))
    for name in ("seed", "measured"):
        yield from differing(f"--{name}", there.get(name), asked.get(name))
    for name in ("curves", "sanity"):
        yield from differing(f"--no-{name}", not there.get(name), not asked.get(name), flag=True)
    tf32 = [bool(settings.get("tf32")) for settings in (there, asked)]
    yield from differing("--tf32", *tf32, flag=True)


def _limit(plan: Stored) -> int | None:
    count = plan.get("images", 0) + len(plan.get("skipped", ()))
    return None if count == plan.get("source", {}).get("count") else count


def _skipped(there: Stored, asked: Stored) -> list[Difference]:
    limits = [_limit(plan) for plan in (there, asked)]
    if limits[0] != limits[1] or there.get("skipped", []) == asked.get("skipped", []):
        return []
    return [Difference("--on-error", "", "", text="--on-error: other images are left out")]


def _labels(there: Stored, asked: Stored) -> list[Difference]:
    before, now = there.get("labels"), asked.get("labels")
    if before is None or now is None:
        words = ["predicted" if labels is None else "source" for labels in (before, now)]
        return differing("--labels", *words)
    least = min(len(before), len(now))
    if before[:least] == now[:least] or there.get("skipped") != asked.get("skipped"):
        return []
    text = "--classes or --class-order: the labels mean other classes"
    return [Difference("--classes", "", "", text=text)]
