"""The Markdown pages of the repository, and the blocks of code in them."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

__all__ = ["PAGES", "ROOT", "Block", "blocks", "commands", "text_of"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{p.name}" for p in sorted(ROOT.glob("docs/*.md"))),
)


@dataclass(frozen=True)
class Block:
    """One block: its page, its first line's number, its language ("" for an indented one)."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """page:line, for ids and messages."""
        return f"{self.page}:{self.line}"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """Every block of a page; an indented one has the language ""."""
    tokens = MarkdownIt("commonmark").parse(text_of(page))
    return [
        Block(page, token.map[0] + 1, token.info.strip(), token.content)
        for token in tokens
        if token.type in ("fence", "code_block") and token.map
    ]


def commands(text: str) -> list[list[str]]:
    """The words of each command of a shell block; lines that end in a backslash go on."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in _parts(line)]
    return [part for part in parts if part]


def _parts(line: str) -> list[list[str]]:
    """A line, cut at && and without comments."""
    found: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word == "&&":
            found.append([])
        else:
            found[-1].append(word)
    return found
