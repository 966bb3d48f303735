"""What the terminal, report.html and report.md say alike: words for threats and verdicts, paths
without the folders they lie in, and which worst cases are worth a row.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath

from .contents import Check, Sanity, Threat, Worst

__all__ = [
    "CONSISTENT",
    "THREATS",
    "TOO_FEW",
    "distinct",
    "is_undecided",
    "last",
    "verdict",
    "without_folders",
]

THREATS: Mapping[Threat, str] = {
    "none": "nothing",
    "pixel": "pixels",
    "flow": "flow",
    "joint": "flow and pixels",
    "rotation": "rotation and shift",
    "all": "any of these",
}
"""What an attack may change."""

CONSISTENT = "self-consistency, not accuracy"
"""What the clean row is where the labels are the model's own predictions."""

TOO_FEW = "too few images to tell"
"""How the detail of a check begins that did not fail, on too few images to mean anything."""


def is_undecided(check: Check) -> bool:
    """Whether a check ran on too few images to mean anything."""
    return check.verdict == "skipped" and check.detail.startswith(TOO_FEW)


def verdict(sanity: Sanity) -> str:
    """Return "pass", "suspect", "none", or "few" where there were too few images to tell."""
    few = sanity.verdict == "none" and any(is_undecided(check) for check in sanity.checks)
    return "few" if few else sanity.verdict


def distinct(worst: Sequence[Worst]) -> Iterator[Worst]:
    """Yield the worst cases of several attacks; one of a single attack is that attack's own row,
    and one of the same attacks as another says the same.
    """
    seen: list[tuple[str, ...]] = []
    for one in worst:
        if len(one.attacks) > 1 and tuple(one.attacks) not in seen:
            seen.append(tuple(one.attacks))
            yield one


def last(path: object) -> str | None:
    """Return the last part of a path: where it lies is nobody's business but the owner's."""
    if not path:
        return None
    text = str(path)
    kind = PureWindowsPath if "\\" in text else PurePosixPath
    return kind(text).name or text


def without_folders(command: str) -> str:
    """Return a command whose absolute paths are their last parts."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    short = [str(last(word)) if _is_absolute(word) else word for word in words]
    return command if short == words else shlex.join(short)


def _is_absolute(word: str) -> bool:
    return PurePosixPath(word).is_absolute() or PureWindowsPath(word).is_absolute()
