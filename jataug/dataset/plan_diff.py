"""The message for a folder that was started with other options than the present command has."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Difference", "differing", "differing_sources", "explain_mismatch"]

_SHOWN = 40
"""Characters of a value that are shown. Longer values do not help the reader."""

_CUT = "..."


@dataclass(frozen=True)
class Difference:
    """One difference between the stored plan and the present one.

    Attributes:
        name: the option as typed, such as "--seed", or a noun for what is no option.
        there: its value in the stored plan.
        asked: its value now.
        flag: whether the option takes no value.
        text: a clause that replaces the two values, if they would not help the reader.
    """

    name: str
    there: Any
    asked: Any
    flag: bool = False
    text: str = ""

    @property
    def is_option(self) -> bool:
        """Whether the difference is one of two values of an option."""
        return self.name.startswith("--") and not self.text

    @property
    def clause(self) -> str:
        """The difference as a clause: "source count changed from 11 to 10"."""
        there, asked = _format(self.there), _format(self.asked)
        return self.text or f"{self.name} changed from {there} to {asked}"

    def typed(self, value: Any) -> str:
        """Return the option with this value as it is typed, or "" if it is left out."""
        if value in (None, []) or (self.flag and not value):
            return ""
        return self.name if self.flag else f"{self.name} {_format(value)}"


def differing(name: str, there: Any, asked: Any, *, flag: bool = False) -> list[Difference]:
    """Return the difference of two values, or an empty list if they are equal."""
    return [] if there == asked else [Difference(name, there, asked, flag)]


def explain_mismatch(root: Path, found: Sequence[Difference], others: Iterable[str] = ()) -> str:
    """Return one line that says how a folder was started, how the command differs, what to do.

    Args:
        root: the folder.
        found: the differences.
        others: further clauses, such as files that changed.

    Returns:
        "out/ was started with --seed 0, and this command says --seed 1. Use --seed 0 to resume, or
        another folder."
    """
    options = [difference for difference in found if difference.is_option]
    clauses = [difference.clause for difference in found if not difference.is_option]
    clauses += others
    if options:
        there = _phrase("with", "without", options, [o.typed(o.there) for o in options])
        asked = _phrase("says", "leaves out", options, [o.typed(o.asked) for o in options])
        wrong = "; ".join([f"was started {there}, and this command {asked}", *clauses])
    else:
        wrong = f"was started differently: {'; '.join(clauses)}"
    return f"{root}/ {wrong}. {_cure(found)}."


def _phrase(given: str, absent: str, options: Sequence[Difference], typed: Sequence[str]) -> str:
    """Return "with --seed 0 and without --limit", given the verb of each part."""
    present = [text for text in typed if text]
    missing = [option.name for option, text in zip(options, typed, strict=True) if not text]
    parts = [f"{given} {_listed(present)}"] if present else []
    parts += [f"{absent} {_listed(missing)}"] if missing else []
    return " and ".join(parts)


def _cure(found: Sequence[Difference]) -> str:
    keep: list[str] = []
    drop: list[str] = []
    for difference in found:
        typed = difference.typed(difference.there) if difference.is_option else ""
        if difference.is_option and not typed:
            drop.append(difference.name)
        elif difference.is_option and not typed.endswith(_CUT):
            keep.append(typed)
        else:
            keep.append(f"the same {difference.name.split()[0]}")
    if not keep:
        leave = f"Leave out {_listed(drop)} to resume, or use" if drop else "Use"
        return f"{leave} another folder"
    without = f" without {_listed(drop)}" if drop else ""
    return f"Use {_listed(list(dict.fromkeys(keep)))}{without} to resume, or another folder"


def _listed(words: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def differing_sources(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[Difference]:
    """Return how two sources differ; both are as Source.describe returns them."""
    found = [
        *differing("source kind", there.get("kind"), asked.get("kind")),
        *differing("source count", there.get("count"), asked.get("count")),
    ]
    if not found and there.get("fingerprint") != asked.get("fingerprint"):
        text = "the source has changed, or it is another one"
        return [Difference("source", "", "", text=text)]
    return found


def _format(value: Any) -> str:
    if isinstance(value, float):
        text = f"{value:g}"
    elif isinstance(value, str):
        text = value
    elif isinstance(value, Sequence):
        text = ",".join(map(_format, value)) or "none"
    else:
        text = "none" if value is None else json.dumps(value, sort_keys=True)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]}{_CUT}"
