from pathlib import Path

import matplotlib
import pytest
from PIL import ImageFont

from jataug.drawing import confidence, font_for, printable, text

DEJAVU = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


@pytest.fixture(params=["none", "dejavu"])
def fonts(request, monkeypatch):
    names = {"none": (), "dejavu": (str(DEJAVU),)}[request.param]
    monkeypatch.setattr(text, "_NAMES", names)
    text._fonts.cache_clear()
    yield request.param
    text._fonts.cache_clear()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain name.png", "plain name.png"),
        ("two\nlines\t", r"two\nlines\t"),
        ("bell\x07 nul\0", r"bell\x07 nul\x00"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("half\udc80", r"half\udc80"),
        ("a\u2028b\x85", r"a\u2028b\x85"),
        ("日本 é 👩‍🚀", "日本 é 👩‍🚀"),
    ],
)
def test_what_cannot_be_seen_is_escaped(given, shown):
    assert printable(given) == shown
    assert printable(shown) == shown
    shown.encode("utf-8")


def test_letters_that_no_font_has_are_escaped(fonts):
    font, shown = font_for("Äpfel ж 日", 13)
    if fonts == "none":
        assert shown == r"\xc4pfel \u0436 \u65e5"
    else:
        assert shown == r"Äpfel ж \u65e5"
        assert Path(font.path) == DEJAVU


def test_the_font_that_has_every_letter_is_taken(fonts):
    font, shown = font_for("plain", 13)
    assert shown == "plain"
    assert font.getname() == ImageFont.load_default(13).getname()
    assert font_for("", 13)[1] == ""


def test_every_letter_of_a_text_leaves_ink(fonts):
    empty = text._shape(font_for("a", 13)[0], text._NO_LETTER)
    for letter in "aé日":
        font, shown = font_for(letter, 13)
        assert all(text._shape(font, char) != empty for char in shown)


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0.0%"),
        (1e-9, "<0.1%"),
        (0.0005, "0.1%"),
        (0.9876, "98.8%"),
        (0.99951, ">99.9%"),
        (1.0, "100.0%"),
    ],
)
def test_confidence_is_not_rounded_to_certainty(share, shown):
    assert confidence(share) == shown
