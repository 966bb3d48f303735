import dataclasses
import math

import pytest

from jataug import BudgetError, FlowBudget, JataugError, PixelBudget
from jataug.budget import radius_of


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (0.3, 0.3),
        (1, 1.0),
        ("8/255", 8 / 255),
        (" 0.5 ", 0.5),
        ("1e-3", 1e-3),
        ("0", 0.0),
        (1e-300, 1e-300),
    ],
)
def test_radius_is_read(value, expected):
    assert radius_of(value, "radius") == expected
    assert isinstance(radius_of(value, "radius"), float)


@pytest.mark.parametrize(
    "value",
    [
        *(-1, -1e-9, "-8/255", math.nan, math.inf, -math.inf, "nan", "inf", "8/0", "", "a"),
        *("1/2/3", None, True, False, [1], {}, "1e999", 10**400, 1j, 1e39),
    ],
)
@pytest.mark.parametrize("make", [FlowBudget, PixelBudget])
def test_other_radii_are_refused_in_one_line(make, value):
    with pytest.raises(BudgetError, match=r"^(flow|pixel) radius: expected") as caught:
        make(value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, JataugError)


@pytest.mark.parametrize("norm", ["l1", "L2", "", None, 2])
@pytest.mark.parametrize("make", [FlowBudget, PixelBudget])
def test_other_norms_are_refused(make, norm):
    with pytest.raises(BudgetError, match=r"^(flow|pixel) budget: expected the norm l2 or linf"):
        make(0.1, norm)


def test_defaults():
    assert FlowBudget() == FlowBudget(0.0, "l2")
    assert PixelBudget() == PixelBudget(0.0, "linf")
    assert PixelBudget("8/255") == PixelBudget(8 / 255)


def test_units_live_in_the_types():
    assert FlowBudget(0.3, "l2") != PixelBudget(0.3, "l2")
    assert FlowBudget(0.3, "l2") != FlowBudget(0.3, "linf")
    assert hash(FlowBudget(0.3)) == hash(FlowBudget("0.3"))


def test_a_budget_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FlowBudget(0.3).radius = 1.0
    assert dataclasses.replace(FlowBudget(0.3, "linf"), radius="1/2") == FlowBudget(0.5, "linf")


def test_levels_are_no_pixel_radius():
    assert PixelBudget(1).radius == 1
    assert PixelBudget(8, "l2").radius == 8
    with pytest.raises(BudgetError, match=r"expected at most 1, .* got 8; .* 8/255"):
        PixelBudget(8)
