"""Text beside pictures, and the choice of a font that has its letters."""

import unicodedata
from functools import lru_cache

from PIL import ImageFont

__all__ = ["Font", "confidence", "font_for", "printable"]

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_NAMES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "DroidSansFallbackFull.ttf",
    "wqy-zenhei.ttc",
    "Arial Unicode.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc",
    "segoeui.ttf",
    "arial.ttf",
    "msyh.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
)
"""Fonts of Linux, macOS and Windows; Pillow's own has the letters of English only."""

_NO_LETTER = "\U0010fffe"  # not a character, so that a font shows what it has for those it lacks
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    r"""Return text on one line, with invisible characters escaped, such as "\n" or "\u202e".

    These are control characters, line breaks, surrogates (bytes of a file name that are not UTF-8)
    and marks that change the direction of the text.
    """
    return "".join(_escaped(char) if _is_hidden(char) else char for char in text)


def confidence(share: float) -> str:
    """Format a probability in percent, never rounded to 0% or 100%."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{100 * share:.1f}%"


def font_for(text: str, size: int) -> tuple[Font, str]:
    """Return the installed font with most letters of `text`, and the text with the others escaped.

    Pillow's own font is preferred if it has all letters.
    """
    best, lacking = _fonts(size)[0], set(text)
    for font in _fonts(size):
        without = {char for char in set(text) if not _has(font, char)}
        if len(without) < len(lacking):
            best, lacking = font, without
        if not lacking:
            break
    return best, "".join(_escaped(char) if char in lacking else char for char in text)


@lru_cache(maxsize=16)
def _fonts(size: int) -> tuple[Font, ...]:
    found: list[Font] = [ImageFont.load_default(size=size)]
    for name in _NAMES:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(found)


@lru_cache(maxsize=4096)
def _has(font: Font, char: str) -> bool:
    return char.isspace() or _shape(font, char) != _shape(font, _NO_LETTER)


def _shape(font: Font, char: str) -> tuple[tuple[int, ...], bytes]:
    mask = font.getmask(char)
    return tuple(mask.size), bytes(mask)


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in _DIRECTIONS


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
