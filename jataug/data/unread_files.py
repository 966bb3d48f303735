"""The files of a folder that are no image jataug reads, so that somebody can say so."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

__all__ = ["LeftOut"]

_CLUTTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
"""What systems put into folders of photographs; hidden files are left out before."""

_SHOWN = 4
"""How many endings are named."""


@dataclass
class LeftOut:
    """Counts files while a folder is walked.

    Attributes:
        endings: how many there are of each ending, in small letters.
        first: the first of them, relative to the folder; "" where there is none.
    """

    endings: Counter[str] = field(default_factory=Counter)
    first: str = ""

    @property
    def count(self) -> int:
        """How many there are."""
        return self.endings.total()

    def add(self, name: str) -> None:
        """Count a file by its path, relative to the folder; known clutter is none."""
        path = PurePath(name)
        if path.name.lower() in _CLUTTER:
            return
        self.first = self.first or name
        self.endings[path.suffix.lower() or "without an ending"] += 1

    def __str__(self) -> str:
        """In words: how many, which endings, the first, what to do."""
        what = "1 file is" if self.count == 1 else f"{self.count} files are"
        return (
            f"{what} not read ({_counted(self.endings)}; the first: {self.first}); convert those "
            "that are images to PNG or JPEG"
        )


def _counted(endings: Mapping[str, int]) -> str:
    many = sorted(endings, key=lambda ending: (-endings[ending], ending))
    said = [f"{endings[ending]} {ending}" for ending in many[:_SHOWN]]
    rest = sum(endings[ending] for ending in many[_SHOWN:])
    return ", ".join([*said, *([f"{rest} others"] if rest else [])])
