"""Starts that are drawn ahead of the attack."""

import numpy as np
import pytest

from jataug import AttackConfig, FlowBudget, PixelBudget, Session
from jataug.errors import BudgetError, DataError

from .sessions import CONFIG, images, levels, same


@pytest.mark.parametrize("make", [images, levels])
@pytest.mark.parametrize("preset", ["claim-1", "claim-8", "evaluation"])
@pytest.mark.parametrize("off", [None, "flow", "pixel"])
def test_the_attack_is_the_same_from_a_start_drawn_ahead(
    tiny_net, exported_attack, preset, make, off
):
    budgets = {"flow": FlowBudget(0.7), "pixel": PixelBudget("8/255")}
    if off:
        budgets[off] = type(budgets[off])(0)
    config = AttackConfig.preset(preset, **budgets, steps=2)
    given, rows = make(7), np.arange(20, 27)
    with Session.open(exported_attack(tiny_net.path, config), device="cpu", batch_size=3) as opened:
        start = opened.draw(given, rows, seed=5, epoch=2)
        assert (start.flow is None, start.delta is None) == (off == "flow", off == "pixel")
        assert any(state is not None and np.any(state) for state in (start.flow, start.delta))
        plain = opened.attack(given, None, rows, seed=5, epoch=2)
        same(opened.attack(given, None, rows, seed=5, epoch=2, start=start), plain)
        other = opened.draw(given, rows, seed=6, epoch=2)
        moved = opened.attack(given, None, rows, seed=6, epoch=2, start=other)
        assert not np.array_equal(moved.adversarial, plain.adversarial)


def test_radii_of_the_draw(session):
    start = session.draw(images(2), flow=[0, 0.5], pixel=0)
    assert not start.flow[0].any()
    assert 0.1 < np.linalg.norm(start.flow[1], axis=0).max() <= 0.5
    assert not start.delta.any()
    with pytest.raises(BudgetError, match="flow radius"):
        session.draw(images(2), flow=99)


def test_a_start_of_other_samples_is_refused(session):
    start = session.draw(images(3), [4, 5, 6], seed=1)
    for options in ({"seed": 2}, {"seed": 1, "epoch": 1}):
        with pytest.raises(DataError, match="start: expected one drawn for the same indices, seed"):
            session.attack(images(3), None, [4, 5, 6], start=start, **options)
    with pytest.raises(DataError, match="got one for 3 images, seed 1, epoch 0"):
        session.attack(images(2), None, [4, 5], seed=1, start=start)


def test_no_runtime_is_started_to_draw(path, monkeypatch):
    monkeypatch.setattr("jataug.runtime.session.engine_type", lambda *_: None)
    with Session.open(path, device="cpu") as opened:
        assert opened.draw(images(1)).flow.shape == (1, 2, 16, 16)
    assert CONFIG.start == "random"
