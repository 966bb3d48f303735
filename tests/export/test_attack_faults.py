"""The checks of the attack's graph, and the faults that each of them must find."""

import numpy as np
import pytest

from jataug.export.attack import body as attack
from jataug.export.attack.warp import Warp

from . import attack_claims as claims

OBJECTIVES = ("truth", "target", "margin")
BRANCHES = ("flow", "pixel")
NORMS = ("l2", "linf")


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_ascends(tiny_net, objective, branch):
    claims.check_ascends(tiny_net.path, objective, branch)


@pytest.mark.parametrize("composition", ["spatial-pixel", "pixel-spatial"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("branch", BRANCHES)
def test_budgets_hold(tiny_net, branch, norm, composition):
    claims.check_budgets(tiny_net.path, branch, norm, composition)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_are_of_the_sum(tiny_net, objective):
    claims.check_image_gradients(tiny_net.path, objective)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_are_per_image(tiny_net, objective):
    claims.check_losses(tiny_net.path, objective)


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_finds_a_wrong_sign(tiny_net, monkeypatch, objective, branch):
    right = attack.cotangent
    monkeypatch.setattr(attack, "cotangent", lambda *given: -right(*given))
    with pytest.raises(AssertionError):
        claims.check_ascends(tiny_net.path, objective, branch)


@pytest.mark.parametrize("branch", BRANCHES)
def test_finds_the_target_taken_for_the_truth(tiny_net, monkeypatch, branch):
    """Ascending CE(a, t): the wrong sign that still runs."""
    right = attack.cotangent

    def swapped(logits, inputs, objective):
        return (
            -right(logits, inputs, objective)
            if objective == "target"
            else right(logits, inputs, objective)
        )

    monkeypatch.setattr(attack, "cotangent", swapped)
    claims.check_ascends(tiny_net.path, "truth", branch)
    with pytest.raises(AssertionError):
        claims.check_ascends(tiny_net.path, "target", branch)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("branch", BRANCHES)
def test_finds_a_projection_that_does_nothing(tiny_net, monkeypatch, branch, norm):
    right = attack.into_ball
    idle = [1] if branch == "flow" else [1, 2, 3]

    def into_ball(term, radius, norm, axes, base=None):
        return term if axes == idle else right(term, radius, norm, axes, base)

    monkeypatch.setattr(attack, "into_ball", into_ball)
    with pytest.raises(AssertionError):
        claims.check_budgets(tiny_net.path, branch, norm, "spatial-pixel")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_finds_a_mean_instead_of_a_sum(tiny_net, monkeypatch, objective):
    right = attack.cotangent

    def mean(logits, inputs, objective):
        ones = logits.graph.constant(np.ones((1, 1)), np.float32)
        count = (ones * one_per_image(logits)).sum([0])
        return right(logits, inputs, objective) / count

    def one_per_image(logits):
        first = logits.slice([0], [1], [1])
        return (first * 0.0) + 1.0

    monkeypatch.setattr(attack, "cotangent", mean)
    with pytest.raises(AssertionError):
        claims.check_image_gradients(tiny_net.path, objective)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_finds_a_mean_loss(tiny_net, monkeypatch, objective):
    right = attack.loss

    def mean(logits, inputs, objective):
        losses = right(logits, inputs, objective)
        return losses * 0.0 + losses.graph.op(
            "ReduceMean", losses, dtype=losses.dtype, shape=(1,), keepdims=1
        )

    monkeypatch.setattr(attack, "loss", mean)
    with pytest.raises(AssertionError):
        claims.check_losses(tiny_net.path, objective)


def test_finds_a_flow_gradient_of_the_wrong_sign(tiny_net, monkeypatch):
    right = Warp.flow_gradient
    monkeypatch.setattr(Warp, "flow_gradient", lambda *given: -right(*given))
    with pytest.raises(AssertionError):
        claims.check_ascends(tiny_net.path, "truth", "flow")
