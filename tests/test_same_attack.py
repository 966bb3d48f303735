"""What the comparison of two attacks finds: faults planted in the exported graph and in results."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from same_attack import check_attack, check_gradients, check_outcome

from jataug import AttackConfig, FlowBudget, PixelBudget, Session
from jataug.attack import joint
from jataug.attack.problem import read
from jataug.export import export_attack
from jataug.export.attack import body as attack
from jataug.export.attack.body import Evaluation
from jataug.runtime import session as session_module

SHAPE = (3, 16, 16)
NORMS = {"signs": ("linf", "linf"), "lengths": ("l2", "l2")}
IMAGES = np.random.default_rng(0).random((6, *SHAPE), np.float32)


def config_of(norms):
    return AttackConfig(
        flow=FlowBudget(0.7, norms[0]),
        pixel=PixelBudget("8/255" if norms[1] == "linf" else 1.0, norms[1]),
        steps=4,
    )


def compare(model, folder, config):
    export_attack(model.path, config, folder / "a.onnx", check=False)
    with Session.open(folder / "a.onnx", device="cpu", threads=1, batch_size=4) as session:
        check_attack(model.module, session, config, IMAGES, seed=1)


def wrong_sign(branch):
    def plant(patch):
        right = getattr(Evaluation, f"{branch}_gradient")
        patch.setattr(Evaluation, f"{branch}_gradient", lambda *given: -right(*given))

    return plant


def one_wrong_sign(branch):
    """Of one entry in each image."""

    def plant(patch):
        right = getattr(Evaluation, f"{branch}_gradient")

        def wrong(*given):
            gradient = right(*given)
            signs = np.ones((1, 2 if branch == "flow" else 3, *SHAPE[1:]), np.float32)
            signs[0, 0, 8, 8] = -1
            return gradient * gradient.graph.constant(signs, np.float32)

        patch.setattr(Evaluation, f"{branch}_gradient", wrong)

    return plant


def in_one_branch(name, change):
    """Plant a change of what a function returns, in the graph's part of the branch."""

    def of(branch):
        axes = [1] if branch == "flow" else [1, 2, 3]

        def plant(patch):
            right = getattr(attack, name)

            def wrong(*given):
                here = any(isinstance(value, list) and value == axes for value in given)
                return change(*given, right) if here else right(*given)

            patch.setattr(attack, name, wrong)

        return plant

    return of


def larger_step_of_the_session(branch):
    def plant(patch):
        right, name = session_module.radii_and_steps, f"{branch}_step"

        def wrong(*given):
            numbers = right(*given)
            return {**numbers, name: np.float32(1.01) * numbers[name]}

        patch.setattr(session_module, "radii_and_steps", wrong)

    return plant


FAULTS = {
    "wrong sign": wrong_sign,
    "one wrong sign": one_wrong_sign,
    "a step 1% larger": in_one_branch("direction", lambda *given: given[-1](*given[:-1]) * 1.01),
    "no projection": in_one_branch("into_ball", lambda term, *_: term),
    "a radius 1% larger": in_one_branch(
        "into_ball", lambda term, radius, *rest: rest[-1](term, radius * 1.01, *rest[:-1])
    ),
    "a step 1% larger, of the session": larger_step_of_the_session,
}


@pytest.mark.parametrize("norms", NORMS.values(), ids=NORMS)
def test_without_a_fault_they_are_the_same(tiny_net, tmp_path, norms):
    compare(tiny_net, tmp_path, config_of(norms))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("branch", ["flow", "pixel"])
@pytest.mark.parametrize("norms", NORMS.values(), ids=NORMS)
def test_finds_a_planted_fault(tiny_net, tmp_path, monkeypatch, norms, branch, fault):
    fault(branch)(monkeypatch)
    with pytest.raises(AssertionError, match=branch):
        compare(tiny_net, tmp_path, config_of(norms))


@pytest.mark.parametrize("branch", ["flow", "pixel"])
def test_finds_a_gradient_that_is_off_by_a_thousandth(tiny_net, branch):
    config = config_of(("l2", "linf"))
    with torch.no_grad():
        image, radius = torch.from_numpy(IMAGES), {"flow": None, "pixel": None}
        posed = read(tiny_net.module, config, image, None, None, None, radius, seed=0, epoch=0)
        state = joint.start(posed)
        found, _ = joint.ascent(posed, state, config.branches)
        check_gradients(posed, state, found)
        found[branch] = found[branch] * 1.001
        with pytest.raises(AssertionError):
            check_gradients(posed, state, found)


@pytest.fixture(scope="module")
def outcome(tiny_net, tmp_path_factory):
    """Return a result, what is compared with it, and results that are not as good."""
    config = config_of(("l2", "linf"))
    path = tmp_path_factory.mktemp("outcome") / "a.onnx"
    export_attack(tiny_net.path, config, path, check=False)
    with Session.open(path, device="cpu", threads=1) as session:
        clean = session.predict(IMAGES)
        results = [session.attack(IMAGES, steps=steps) for steps in (4, 1, 0)]
    return results, (clean, IMAGES, config)


def changed(result, name, where, value):
    array = getattr(result, name).copy()
    array[where] = value
    return replace(result, **{name: array})


def test_finds_an_outcome_that_is_not_as_good(outcome):
    (right, _, weak), given = outcome
    check_outcome(right, right, *given)
    with pytest.raises(AssertionError, match="mean loss"):
        check_outcome(right, weak, *given)


@pytest.mark.parametrize(
    "change",
    [
        ("flow", (0, slice(None), 3, 3), 0.6),
        ("exact", (0, 0, 3, 3), 0.5),
        ("exact", (0, 0, 3, 3), 1.01),
        ("loss", 0, 9.0),
        ("success", slice(None), True),
        ("target", 0, 3),
    ],
    ids=["flow", "pixel", "range", "loss", "success", "target"],
)
def test_finds_a_result_that_contradicts_itself(outcome, change):
    (right, *_), given = outcome
    name, where, value = change
    assert np.any(getattr(right, name)[where] != value)
    with pytest.raises(AssertionError):
        check_outcome(right, changed(right, name, where, value), *given)
