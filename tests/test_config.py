import dataclasses
import itertools
import json
import math

import pytest

from jataug import AttackConfig, BudgetError, FlowBudget, PixelBudget
from jataug.config import PRESETS

OTHER = {
    "flow": FlowBudget(1.5, "linf"),
    "pixel": PixelBudget(0.5, "l2"),
    "steps": 3,
    "flow_step": 0.1,
    "pixel_step": 0.2,
    "order": "pixel-flow",
    "composition": "pixel-spatial",
    "flow_objective": "truth",
    "pixel_objective": "margin",
    "start": "zero",
    "keep": "best",
    "simultaneous": True,
    "redraw_targets": True,
}


def test_the_default_is_claim_1():
    config = AttackConfig()
    assert config == AttackConfig.preset("claim-1")
    assert (config.order, config.composition) == ("flow-pixel", "spatial-pixel")
    assert (config.flow_objective, config.pixel_objective) == ("margin", "target")
    assert (config.flow, config.pixel) == (FlowBudget(0.3), PixelBudget("8/255"))
    assert (config.keep, config.start) == ("last", "random")
    assert not config.simultaneous
    assert not config.redraw_targets


def test_the_presets_are_what_the_claims_pair():
    config = AttackConfig.preset("claim-8")
    assert (config.order, config.composition) == ("pixel-flow", "pixel-spatial")
    assert (config.flow_objective, config.pixel_objective) == ("target", "target")
    config = AttackConfig.preset("evaluation")
    assert (config.order, config.composition) == ("flow-pixel", "spatial-pixel")
    assert (config.flow_objective, config.pixel_objective) == ("truth", "truth")
    assert config.keep == "best"
    assert set(PRESETS) == {"claim-1", "claim-8", "evaluation"}


def test_options_go_on_top_of_a_preset():
    config = AttackConfig.preset("evaluation", keep="last", steps=3)
    assert (config.keep, config.steps, config.flow_objective) == ("last", 3, "truth")


def test_an_unknown_preset_is_refused():
    with pytest.raises(BudgetError, match=r"^preset: expected one of claim-1, claim-8, evaluation"):
        AttackConfig.preset("claim-2")


def test_every_field_has_another_value_here():
    names = {field.name for field in dataclasses.fields(AttackConfig)}
    assert set(OTHER) == names
    assert all(getattr(AttackConfig(), name) != value for name, value in OTHER.items())


@pytest.mark.parametrize("name", OTHER)
def test_every_field_goes_through_json(name):
    config = AttackConfig(**{name: OTHER[name]})
    assert config != AttackConfig()
    assert AttackConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_whole_goes_through_json():
    config = AttackConfig(**OTHER)
    assert AttackConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"stepz": 3}, "^attack configuration: unknown keys stepz"),
        ({"flow": {"radius": -1}}, "^flow radius: expected"),
        ({"flow": {"size": 1}}, "^flow: expected the keys radius and norm"),
        ({"pixel": 0.1}, "^pixel: expected the keys radius and norm"),
        ({"pixel": None}, "^pixel: expected the keys radius and norm"),
        ({"steps": 1.5}, "^steps: expected an integer"),
        ({"order": ["flow-pixel"]}, "^order: expected one of"),
    ],
)
def test_an_edited_dictionary_is_refused(data, message):
    with pytest.raises(BudgetError, match=message):
        AttackConfig.from_dict(AttackConfig().to_dict() | data)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flow", 0.3),
        ("flow", PixelBudget(0.3)),
        ("pixel", FlowBudget(0.3)),
        ("steps", -1),
        ("steps", 2.0),
        ("steps", 10**23),
        ("steps", True),
        ("flow_step", -0.1),
        ("flow_step", math.nan),
        ("flow_step", 1e308),
        ("pixel_step", "x"),
        ("order", "pixel"),
        ("composition", "flow-pixel"),
        ("flow_objective", "untargeted"),
        ("pixel_objective", None),
        ("start", "gauss"),
        ("keep", "first"),
        ("simultaneous", 1),
        ("redraw_targets", "no"),
    ],
)
def test_other_values_are_refused(name, value):
    with pytest.raises(BudgetError, match=f"^{name}: expected"):
        AttackConfig(**{name: value})


def test_step_sizes():
    config = AttackConfig()
    assert config.step_sizes(0.3, 0.1, 10) == pytest.approx((0.075, 0.025))
    assert config.step_sizes(0.3, 0.1, 1) == (0.3, 0.1)
    assert config.step_sizes(0.3, 0.1, 2) == (0.3, 0.1)
    assert config.step_sizes(0.3, 0.1, 0) == (0.3, 0.1)
    assert config.step_sizes(0.0, 0.0, 5) == (0.0, 0.0)
    given = config.replace(flow_step=1, pixel_step="2/255")
    assert given.step_sizes(0.3, 0.1, 10) == (1.0, 2 / 255)


@pytest.mark.parametrize(
    ("order", "flow", "pixel"),
    list(itertools.product(("flow-pixel", "pixel-flow"), (0, 1), (0, 1))),
)
def test_branches_and_the_reported_objective(order, flow, pixel):
    config = AttackConfig(
        order=order,
        flow=FlowBudget(flow),
        pixel=PixelBudget(pixel),
        flow_objective="margin",
        pixel_objective="target",
    )
    expected = [name for name in order.split("-") if {"flow": flow, "pixel": pixel}[name]]
    assert list(config.branches) == expected
    objective = {"flow": "margin", "pixel": "target"}
    assert config.reported_objective == (objective[expected[-1]] if expected else "truth")
