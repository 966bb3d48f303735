"""The options in which two plans of a data set differ, without what follows from them."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..data.image_folder import natural
from ..dataset.plan import DEFAULT_BATCH
from ..dataset.plan_diff import Difference, differing, differing_sources
from ..units import typed_radius

__all__ = ["plan_differences"]

Stored = Mapping[str, Any]
"""A plan as it is stored."""

_OPTIONS = (
    "seed", "epoch", "format", "labels", "resize", "crop", "threads", "backend",
)  # fmt: skip
_FLAGS = ("save_flow", "save_float", "tf32")


def plan_differences(there: Stored, asked: Stored) -> list[Difference]:
    """Return the differences between a stored plan and the plan of the present command."""
    first, second = ({"backend": "onnxruntime", "tf32": False, **plan} for plan in (there, asked))
    return [
        *_limits(first, second),
        *(
            found
            for name in _OPTIONS
            for found in differing(_typed(name), first.get(name), second.get(name))
        ),
        *(
            found
            for name in _FLAGS
            for found in differing(_typed(name), first.get(name), second.get(name), flag=True)
        ),
        *_classes(first, second),
        *_attacks(first, second),
        *differing_sources(first.get("source", {}), second.get("source", {})),
    ]


def _limits(there: Stored, asked: Stored) -> Iterator[Difference]:
    yield from differing("--limit", _limit(there), _limit(asked))
    sizes = [plan.get("batch_size") for plan in (there, asked)]
    if sizes != [_default_batch(plan) for plan in (there, asked)]:
        yield from differing("--batch-size", *sizes)
    if not _one_request(there, asked):
        yield from differing("--shard-size", there.get("shard_size"), asked.get("shard_size"))


def _limit(plan: Stored) -> int | None:
    count: int | None = plan.get("count")
    return None if count == plan.get("source", {}).get("count") else count


def _default_batch(plan: Stored) -> int:
    count: int = plan.get("count", 0)
    return max(1, min(DEFAULT_BATCH, count))


def _one_request(there: Stored, asked: Stored) -> bool:
    """Return whether one --shard-size, rounded up to whole batches, can explain both plans."""
    if there.get("batch_size") == asked.get("batch_size"):
        return False
    ends: list[tuple[int, int]] = [
        (plan.get("shard_size", 0), plan.get("batch_size", 0)) for plan in (there, asked)
    ]
    return max(end - size for end, size in ends) < min(end for end, _ in ends)


def _classes(first: Stored, second: Stored) -> Iterator[Difference]:
    there, asked = first.get("class_labels"), second.get("class_labels")
    orders = [_class_order(plan) for plan in (first, second)]
    if all(orders):
        yield from differing("--class-order", *orders)
        return
    if there is None or asked is None:
        yield from differing("--classes", there is not None, asked is not None, flag=True)
        return
    for name in {**there, **asked}:
        if (before := there.get(name)) != (now := asked.get(name)):
            numbers = ["none" if number is None else number for number in (before, now)]
            text = f"in --classes, the class of {name!r} changed from {numbers[0]} to {numbers[1]}"
            yield Difference("--classes", before, now, text=text)
            return


def _class_order(plan: Stored) -> str | None:
    """Return the --class-order of a plan, or None if --classes numbered its class folders."""
    if plan.get("source", {}).get("kind") != "folder" or plan.get("labels") != "source":
        return None
    if (labels := plan.get("class_labels")) is None:
        return "natural"
    names = sorted(labels)
    in_order = [labels[name] for name in names] == list(range(plan.get("classes", 0)))
    return "sorted" if in_order and names != sorted(names, key=natural) else None


def _attacks(there: Stored, asked: Stored) -> list[Difference]:
    before, now = (_flat(plan.get("attack", {})) for plan in (there, asked))
    found = [
        difference
        for name in {**before, **now}
        for difference in differing(f"attack {name}", before.get(name), now.get(name))
    ]
    if not found and there.get("artifact") != asked.get("artifact"):
        return [Difference("attack", "", "", text="the attack file has changed")]
    return found


def _flat(attack: Stored) -> dict[str, Any]:
    """Return the options of an attack by readable names, with its two budgets as single values."""
    flat: dict[str, Any] = {}
    for name, value in attack.items():
        plain = name.replace("_", " ")
        if isinstance(value, Mapping):
            flat.update({f"{plain} {key}": inner for key, inner in value.items()})
        else:
            flat[plain] = value
    if "pixel radius" in flat:
        flat["pixel radius"] = typed_radius(flat["pixel radius"])
    return flat


def _typed(name: str) -> str:
    return f"--{name.replace('_', '-')}"
