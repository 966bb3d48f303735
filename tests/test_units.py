"""Radii and times as people read and type them."""

import pytest

from jataug import PixelBudget
from jataug.units import duration, radius_255, typed_radius, whole_levels


@pytest.mark.parametrize(
    ("radius", "text", "levels"),
    [
        (8 / 255, "8/255", 8),
        (0.5 / 255, repr(0.5 / 255), None),
        (0.1, "0.1", None),
        (1.0, "255/255", 255),
        (0.0, "0/255", 0),
        (0.031372549, "0.031372549", None),  # close to 8/255, and another radius
    ],
)
def test_a_radius_is_typed_as_what_it_is(radius, text, levels):
    assert typed_radius(radius) == text
    assert PixelBudget(text).radius == radius
    assert whole_levels(radius) == levels


@pytest.mark.parametrize(
    ("radius", "text"),
    [(8 / 255, "8"), (0.05, "12.75"), (0.5 / 255, "0.5"), (0.0, "0"), (0.003141 / 255, "0.003141")],
)
def test_levels_have_four_digits(radius, text):
    assert radius_255(radius) == f"{text}/255"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.5214, "0.52 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3723, "1 h 02 min"),
        (7199.9, "2 h 00 min"),
        (3 * 86400 + 4.5 * 3600, "3 d 04 h"),
    ],
)
def test_times_have_two_units(seconds, text):
    assert duration(seconds) == text
