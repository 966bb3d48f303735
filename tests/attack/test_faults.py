"""Faults planted in the attack: each must fail the check that is there to find it."""

import attack_claims as claims
import pytest
import torch

from jataug import AttackConfig
from jataug.attack import finalize, joint, objective, render, warp


@pytest.mark.parametrize("shift", [(0.5, 0.0), (0.0, -0.5), (0.5, 0.5)])
def test_warp_off_by_half_a_pixel(monkeypatch, shift):
    offset = torch.tensor(shift).view(1, 2, 1, 1)
    monkeypatch.setattr(render, "warp", lambda image, flow: warp.warp(image, flow + offset))
    with pytest.raises(AssertionError):
        claims.check_zero_state_is_identity()
    with pytest.raises(AssertionError):
        claims.check_warp_agrees_with_numpy()


def test_warp_with_its_axes_swapped(monkeypatch):
    monkeypatch.setattr(render, "warp", lambda image, flow: warp.warp(image, flow.flip(1)))
    with pytest.raises(AssertionError):
        claims.check_warp_agrees_with_numpy()


@pytest.mark.parametrize("idle", ["flow", "pixel"])
def test_projection_that_does_nothing(monkeypatch, idle):
    whole = joint.ball

    def ball(branch, value, radius, norm, base=None):
        return value if branch == idle else whole(branch, value, radius, norm, base)

    monkeypatch.setattr(joint, "ball", ball)
    monkeypatch.setattr(finalize, "ball", ball)
    with pytest.raises(AssertionError):
        claims.check_budgets(AttackConfig(steps=3, pixel_step=0.1, flow_step=1.0))
    with pytest.raises(AssertionError):
        claims.check_state_budgets(("l2", "linf"))


def test_mean_instead_of_a_sum(monkeypatch):
    def mean(*arguments):
        return objective.cotangent(*arguments) / len(arguments[1])

    monkeypatch.setattr(joint, "cotangent", mean)
    with pytest.raises(AssertionError):
        claims.check_gradient_is_of_the_sum()


def test_mean_loss(monkeypatch):
    def mean(*arguments):
        value = objective.loss(*arguments)
        return value.mean().expand_as(value)

    monkeypatch.setattr(joint, "loss", mean)
    with pytest.raises(AssertionError):
        claims.check_loss_is_per_image()


@pytest.mark.parametrize("ascended", ["truth", "target", "margin"])
@pytest.mark.parametrize("radii", [(0.5, 0.0), (0.0, 0.03)], ids=["flow", "pixel"])
def test_wrong_sign_of_an_objective(monkeypatch, ascended, radii):
    def negative(*arguments):
        return -objective.cotangent(*arguments)

    monkeypatch.setattr(joint, "cotangent", negative)
    with pytest.raises(AssertionError):
        claims.check_ascends(ascended, radii)
