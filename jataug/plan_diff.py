"""How what is asked differs from what was begun at a destination, in the words of who typed it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Difference", "differing", "differing_sources", "refusal"]

_SHOWN = 40
"""Characters of a value; more explain nothing."""


@dataclass(frozen=True)
class Difference:
    """One of them.

    Attributes:
        name: the option as it is typed, or a word for what is none.
        there: its value at the destination.
        asked: its value now.
        flag: whether the option takes no value.
        text: what is said in place of the values, where they mean nothing to people.
    """

    name: str
    there: Any
    asked: Any
    flag: bool = False
    text: str = ""

    def __str__(self) -> str:
        """In words: --seed 0 there, 1 asked."""
        if self.text:
            return self.text
        said = (("given" if value else "not given") for value in (self.there, self.asked))
        there, asked = said if self.flag else map(_words, (self.there, self.asked))
        return f"{self.name} {there} there, {asked} asked"

    @property
    def again(self) -> str:
        """What goes on with what is there: --seed 0."""
        if self.text or not self.name.startswith("--") or len(_words(self.there)) >= _SHOWN:
            return f"the same {self.name.split()[0]}"
        if self.there in (None, []) or (self.flag and not self.there):
            return f"no {self.name}"
        return self.name if self.flag else f"{self.name} {_words(self.there)}"


def differing(name: str, there: Any, asked: Any, *, flag: bool = False) -> list[Difference]:
    """Return the difference of two values; none where they are equal."""
    return [] if there == asked else [Difference(name, there, asked, flag)]


def refusal(found: Sequence[Difference], others: Iterable[str], otherwise: str) -> str:
    """Return what differs, and what to do, in one line.

    Args:
        found: what differs.
        others: what else is to be said, such as files that changed.
        otherwise: what else to do: choose another destination.
    """
    said = "; ".join([*map(str, found), *others])
    again = " and ".join(dict.fromkeys(difference.again for difference in found))
    return f"{said}; {f'give {again} to go on there, or ' if again else ''}{otherwise}"


def differing_sources(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[Difference]:
    """Return how two sources differ, as Source.describe describes them."""
    found = [
        *differing("source kind", there.get("kind"), asked.get("kind")),
        *differing("source count", there.get("count"), asked.get("count")),
    ]
    if not found and there.get("fingerprint") != asked.get("fingerprint"):
        text = "files of the source were changed since, or it is another source"
        return [Difference("source", "", "", text=text)]
    return found


def _words(value: Any) -> str:
    if isinstance(value, float):
        text = f"{value:g}"
    elif isinstance(value, str):
        text = value
    elif isinstance(value, Sequence):
        text = ",".join(map(_words, value)) or "none"
    else:
        text = "none" if value is None else json.dumps(value, sort_keys=True)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]}..."
