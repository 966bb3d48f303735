"""Counts the files of a folder that jataug does not read as images, for a warning."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

__all__ = ["UnreadFiles"]

_CLUTTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
"""Files that operating systems put into folders of photographs; they need no warning."""

_SHOWN = 4
"""Largest number of file endings that the warning names."""


@dataclass
class UnreadFiles:
    """Counts files while a folder is walked.

    Attributes:
        endings: how many there are of each ending, in small letters.
        first: the first of them, relative to the folder; "" where there is none.
    """

    endings: Counter[str] = field(default_factory=Counter)
    first: str = ""

    @property
    def count(self) -> int:
        """The number of files."""
        return self.endings.total()

    def add(self, name: str) -> None:
        """Count a file by its path relative to the folder, unless it is a system file."""
        path = PurePath(name)
        if path.name.lower() in _CLUTTER:
            return
        self.first = self.first or name
        self.endings[path.suffix.lower() or "without an ending"] += 1

    def __str__(self) -> str:
        """Return the warning: number, endings, the first file, and what to do."""
        what = "1 file is" if self.count == 1 else f"{self.count} files are"
        return (
            f"{what} not read ({_counted(self.endings)}; the first: {self.first}); convert images "
            "among them to PNG or JPEG"
        )


def _counted(endings: Mapping[str, int]) -> str:
    many = sorted(endings, key=lambda ending: (-endings[ending], ending))
    said = [f"{endings[ending]} {ending}" for ending in many[:_SHOWN]]
    rest = sum(endings[ending] for ending in many[_SHOWN:])
    return ", ".join([*said, *([f"{rest} others"] if rest else [])])
