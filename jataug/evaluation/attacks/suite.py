"""The attacks by name, and their options in the suites "quick" and "strong"."""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

from ...config import Composition
from ...errors import BudgetError
from .apgd import Apgd
from .ascent import Ascent
from .autoattack import AutoAttack
from .losses import Objective
from .restarts import Attack
from .rotation import Rotation
from .square import Square

__all__ = ["ATTACKS", "SUITES", "Suite", "attacks_of"]

Suite = Literal["quick", "strong"]

_FLOW: Mapping[str, Any] = {"branches": ("flow",)}
_PIXEL: Mapping[str, Any] = {"branches": ("pixel",)}
_FGSM: Mapping[str, Any] = {**_PIXEL, "steps": 1, "start": "zero"}
_JOINT: Mapping[str, Any] = {"branches": ("flow", "pixel")}
_TURNED: Mapping[str, Any] = {"branches": ("pixel", "flow"), "composition": "pixel-spatial"}

ATTACKS: Mapping[str, tuple[Callable[..., Attack], Mapping[Suite, Mapping[str, Any]]]] = {
    "noise": (Ascent, {
        "quick": {**_JOINT, "steps": 0, "restarts": 10},
        "strong": {**_JOINT, "steps": 0, "restarts": 100},
    }),
    "fgsm": (Ascent, {"quick": _FGSM, "strong": _FGSM}),
    "pgd": (Ascent, {
        "quick": {**_PIXEL, "steps": 20},
        "strong": {**_PIXEL, "steps": 100, "restarts": 5},
    }),
    "flow": (Ascent, {
        "quick": {**_FLOW, "steps": 20},
        "strong": {**_FLOW, "steps": 100, "restarts": 5},
    }),
    "joint": (Ascent, {
        "quick": {**_JOINT, "steps": 20},
        "strong": {**_JOINT, "steps": 100, "restarts": 5},
    }),
    "joint-pixel-flow": (Ascent, {
        "quick": {**_TURNED, "steps": 20},
        "strong": {**_TURNED, "steps": 100, "restarts": 5},
    }),
    "joint-targets": (Ascent, {
        "quick": {**_JOINT, "steps": 20, "targets": 3, "objective": "margin"},
        "strong": {**_JOINT, "steps": 100, "targets": 9, "objective": "margin"},
    }),
    "apgd-ce": (Apgd, {"quick": {"steps": 40}, "strong": {"steps": 100, "restarts": 5}}),
    "apgd-targeted": (Apgd, {
        "quick": {"steps": 20, "targets": 3, "objective": "dlr-targeted"},
        "strong": {"steps": 100, "targets": 9, "objective": "dlr-targeted"},
    }),
    "square": (Square, {"quick": {"steps": 200}, "strong": {"steps": 2000}}),
    "rotate": (Rotation, {"quick": {"draws": 10}, "strong": {"draws": 100}}),
    "rotate-grid": (Rotation, {
        "quick": {"angles": 11, "shifts": 3},
        "strong": {"angles": 31, "shifts": 5},
    }),
    "autoattack": (AutoAttack, {"quick": {}, "strong": {}}),
}  # fmt: skip
"""Name -> the function that makes the attack, and its options in each suite."""

SUITES: Mapping[Suite, tuple[str, ...]] = {
    "quick": ("noise", "fgsm", "pgd", "apgd-ce", "flow", "joint", "rotate"),
    "strong": tuple(name for name in ATTACKS if name != "autoattack"),
}
"""The attacks of each suite, in the order of the table."""


_TARGETED = ("target", "margin", "dlr-targeted")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "objective": get_args(Objective),
    "composition": get_args(Composition),
    "start": ("random", "zero"),
    "border": ("edge", "zero"),
    "version": ("standard", "plus", "rand"),
}
_LEAST = {"steps": 1, "restarts": 1, "draws": 1}


def attacks_of(names: Iterable[str], suite: Suite) -> dict[str, Attack]:
    """Return attacks by name. A name may have options: "pgd:steps=50:restarts=3".

    Args:
        names: from ATTACKS. "clean" is ignored, because it is always measured.
        suite: gives the options that a name does not set.

    Raises:
        BudgetError: a name or an option is unknown; the message suggests the nearest.
    """
    found: dict[str, Attack] = {}
    for text in names:
        name, *options = text.strip().split(":")
        if name == "clean":
            continue
        if name not in ATTACKS:
            raise BudgetError(f"attack: {_unknown(name, ['clean', *ATTACKS])}")
        if text in found:
            raise BudgetError(f"attack {text!r} is given twice; leave one out")
        found[text] = _made(name, options, suite)
    return found


def _made(name: str, options: list[str], suite: Suite) -> Attack:
    make, presets = ATTACKS[name]
    values: dict[str, Any] = dict(presets[suite])
    plain = make(**values)
    known = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}  # type: ignore[arg-type]
    settable = sorted(key for key, held in known.items() if isinstance(held, (int, float, str)))
    for option in options:
        key, _, text = option.partition("=")
        if key not in settable:
            raise BudgetError(f"attack {name}: option {_unknown(key, settable)}")
        values[key] = _value(name, key, text, known[key])
    made = make(**values)
    if (values.get("objective") in _TARGETED) != bool(made.targets):
        raise BudgetError(
            f"attack {name}: the objective {values.get('objective', 'none')} does not go with "
            f"targets={made.targets}; targets above 0 need one of the objectives "
            f"{', '.join(_TARGETED)}, and those need targets"
        )
    return made


def _value(name: str, key: str, text: str, like: Any) -> Any:
    try:
        value = type(like)(text)
    except ValueError:
        raise BudgetError(
            f"attack {name}: expected {key} as {type(like).__name__}, got {text!r}"
        ) from None
    if isinstance(value, str) and value not in _CHOICES[key]:
        raise BudgetError(f"attack {name}: {key} {_unknown(value, _CHOICES[key])}")
    least = _LEAST.get(key, 0) if (name, key) != ("noise", "steps") else 0
    if not isinstance(value, str) and not least <= value < math.inf:
        raise BudgetError(f"attack {name}: expected {key} >= {least}, got {text}")
    return value


def _unknown(name: str, known: Iterable[str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"expected one of {', '.join(known)}, got {name!r}{hint}"
