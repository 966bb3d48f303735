"""Starts that are drawn ahead of the attack."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from same_attack import check_outcome

from jataug import AttackConfig, FlowBudget, PixelBudget, Session
from jataug.attack import JointAttack
from jataug.errors import BudgetError, DataError

from .sessions import CONFIG, images, levels, same
from .test_resident import resident


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


def arrays(result):
    """The result of a torch attack with numpy arrays in it."""
    held = {field.name: getattr(result, field.name) for field in fields(result)}
    return type(result)(
        **{name: v if v is None else v.detach().numpy() for name, v in held.items()}
    )


@pytest.mark.parametrize("preset", ["claim-1", "claim-8", "evaluation"])
@pytest.mark.parametrize("steps", [0, 2])
def test_the_torch_attack_begins_there_too(tiny_net, exported_attack, preset, steps):
    """It is the session's attack from that start, which is not the one that it would draw."""
    budgets = {"flow": FlowBudget(0.7), "pixel": PixelBudget("8/255")}
    config = AttackConfig.preset(preset, **budgets, steps=2)
    given, rows, streams = images(7), np.arange(20, 27), {"seed": 5, "epoch": 2}
    attack, tensor = JointAttack(config), torch.from_numpy(given)
    with Session.open(exported_attack(tiny_net.path, config), device="cpu") as opened:
        start = opened.draw(given, rows, **streams, flow=0.3)
        expected = opened.attack(given, None, rows, **streams, start=start, steps=steps)
        clean = opened.predict(given)
    found = attack(tiny_net.module, tensor, None, rows, **streams, start=start, steps=steps)
    check_outcome(expected, arrays(found), clean, given, config)
    if not steps:
        np.testing.assert_allclose(found.exact.numpy(), expected.exact, rtol=0, atol=1e-6)
        drawn = attack(tiny_net.module, tensor, None, rows, **streams, steps=0)
        assert np.abs(drawn.exact.numpy() - expected.exact).max() > 1e-3


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
        with pytest.raises(DataError, match=r"^start: .*same indices, seed"):
            session.attack(images(3), None, [4, 5, 6], start=start, **options)
    with pytest.raises(DataError, match="drawn for 3 images, seed 1 and epoch 0"):
        session.attack(images(2), None, [4, 5], seed=1, start=start)


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize(
    ("drawn", "given", "words"),
    [
        ({"flow": 0.7}, {"flow": 0.1}, ("flow radius of 0.7", "0.1", "image 0")),
        ({}, {"flow": [0.7, 0.7, 0.2]}, ("flow radius of 0.7", "0.2", "image 2")),
        ({"pixel": [0, 0.5, 0]}, {}, ("pixel radius of 0.5", "0.0313", "image 1")),
    ],
)
def test_a_start_of_larger_radii_is_refused(session, make, drawn, given, words):
    """Without a step, nothing would bring it inside."""
    start = session.draw(images(3), **drawn)
    attack = session.attack if make is np.asarray else resident(session).attack
    with pytest.raises(DataError) as error:
        attack(make(images(3)), steps=0, start=start, **given)
    for word in ("start: ", *words):
        assert word in str(error.value)


@pytest.mark.parametrize("steps", [0, 3])
def test_a_start_of_smaller_radii_is_inside(session, steps):
    start = session.draw(images(3), flow=[0.1, 0, 0.7], pixel=0.01)
    found = session.attack(images(3), steps=steps, start=start)
    vectors = found.flow.astype(np.float64)
    assert np.linalg.norm(vectors, axis=1).max() <= 0.7
    if not steps:
        assert np.linalg.norm(vectors[:2], axis=1).max() <= 0.1
        assert np.abs(found.delta).max() <= 0.01 + 1e-7


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_a_start_that_was_changed_stays_inside(session, make):
    start = session.draw(images(2))
    longer = replace(start, flow=3 * start.flow, delta=3 * start.delta)
    attack = session.attack if make is np.asarray else resident(session).attack
    found = attack(make(images(2)), steps=0, start=longer)
    assert np.linalg.norm(np.asarray(found.flow, np.float64), axis=1).max() <= 0.7
    assert np.abs(np.asarray(found.delta)).max() <= 8 / 255 + 1e-7


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_a_start_of_another_size_is_refused(session, make):
    start = session.draw(images(2))
    attack = session.attack if make is np.asarray else resident(session).attack
    for wrong in (replace(start, flow=start.flow[..., :8]), replace(start, delta=None)):
        with pytest.raises(DataError, match=r"start: expected a (flow|pixel) start"):
            attack(make(images(2)), steps=0, start=wrong)


@pytest.mark.parametrize(
    ("drawn", "given", "words"),
    [
        ({"flow": 0.7}, {"flow": 0.1}, ("flow radius of 0.7", "0.1", "image 0")),
        ({"pixel": [0, 0.5, 0]}, {}, ("pixel radius of 0.5", "0.0313", "image 1")),
        ({"seed": 1}, {}, ("the same indices, seed and epoch", "seed 1")),
    ],
)
def test_the_torch_attack_refuses_a_start_of_something_else(session, tiny_net, drawn, given, words):
    start, attack = session.draw(images(3), **drawn), JointAttack(CONFIG)
    with pytest.raises(DataError) as error:
        attack(tiny_net.module, torch.from_numpy(images(3)), start=start, steps=0, **given)
    for word in ("start: ", *words):
        assert word in str(error.value)


def test_no_runtime_is_started_to_draw(path, monkeypatch):
    monkeypatch.setattr("jataug.runtime.session.engine_type", lambda *_: None)
    with Session.open(path, device="cpu") as opened:
        assert opened.draw(images(1)).flow.shape == (1, 2, 16, 16)
    assert CONFIG.start == "random"
