"""The joint attack: budgets, its limits, the order of an iteration, the best iterate."""

import itertools
from dataclasses import replace

import attack_claims as claims
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import jataug.warp
from jataug import AttackConfig, FlowBudget, PixelBudget, streams
from jataug.attack import JointAttack, joint
from jataug.attack import render as render_module
from jataug.attack.best_iterate import Candidate, better
from jataug.attack.warp import warp

OFF = {"flow": FlowBudget(0), "pixel": PixelBudget(0)}
NORMS = list(itertools.product(("l2", "linf"), repeat=2))
FORMS = list(
    itertools.product(("flow-pixel", "pixel-flow"), ("spatial-pixel", "pixel-spatial"), (0, 1))
)


# Budgets, warp, objectives: the checks that the planted faults fail.


def test_zero_state_is_the_identity():
    claims.check_zero_state_is_identity()


def test_warp_agrees_with_numpy():
    claims.check_warp_agrees_with_numpy()


@pytest.mark.parametrize("norms", NORMS)
@pytest.mark.parametrize("form", FORMS)
def test_budgets_hold(norms, form):
    order, composition, simultaneous = form
    claims.check_budgets(
        AttackConfig(
            flow=FlowBudget(1, norms[0]),
            pixel=PixelBudget(1, norms[1]),
            order=order,
            composition=composition,
            simultaneous=bool(simultaneous),
            steps=3,
            flow_step=1.0,
            pixel_step=0.1,
        )
    )


@pytest.mark.parametrize("norms", NORMS)
def test_every_state_is_inside_its_budgets(norms):
    claims.check_state_budgets(norms)


def test_gradient_is_of_the_sum():
    claims.check_gradient_is_of_the_sum()


def test_loss_is_per_image():
    claims.check_loss_is_per_image()


@pytest.mark.parametrize("objective", ["truth", "target", "margin"])
@pytest.mark.parametrize("radii", [(0.5, 0.0), (0.0, 0.03), (0.5, 0.03)])
def test_each_objective_ascends(objective, radii):
    claims.check_ascends(objective, radii)


def test_attack_on_the_target_brings_its_cross_entropy_down(model):
    image = claims.smooth(6, 3, 16, 16)
    config = claims.small(AttackConfig.preset("claim-8"))
    result = JointAttack(config)(model, image)
    with torch.no_grad():
        before = cross_entropy(model(image), result.target, reduction="none")
        after = cross_entropy(model(result.adversarial), result.target, reduction="none")
    assert (after < before).all()


# Limits of the joint attack that are attacks of their own.


def test_one_full_step_from_zero_is_fgsm():
    shape, radius = (3, 6, 5), 8 / 255
    image, model = claims.images(4, *shape), claims.Linear(shape, classes=2)
    label = torch.tensor([0, 1, 0, 1])
    config = AttackConfig(
        flow=FlowBudget(0),
        pixel=PixelBudget(radius),
        steps=1,
        start="zero",
        pixel_objective="truth",
    )
    result = JointAttack(config)(model, image, label)
    uphill = (model.weight[1 - label] - model.weight[label]).detach().sign()
    expected = (image + radius * uphill).clamp(0, 1)
    torch.testing.assert_close(result.adversarial, expected, rtol=0, atol=claims.SLACK)
    torch.testing.assert_close(result.delta, expected - image, rtol=0, atol=claims.SLACK)
    assert not result.flow.any()


def pgd_step(model, image, label, delta, radius, step):
    """Return the next perturbation, and the gradient that led to it."""
    delta = delta.clone().requires_grad_()
    loss = cross_entropy(model(image + delta), label, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, delta)
    delta = (delta.detach() + step * gradient.sign()).clamp(-radius, radius)
    return (image + delta).clamp(0, 1) - image, gradient


@pytest.mark.parametrize("composition", ["spatial-pixel", "pixel-spatial"])
def test_without_flow_it_is_pgd(model, composition):
    """Step by step, but where a gradient is within rounding of zero: its scale differs."""
    image, label, radius = claims.images(5, 3, 12, 12), torch.tensor([1, 2, 3, 4, 5]), 8 / 255
    config = AttackConfig(
        flow=FlowBudget(0), steps=7, pixel_objective="truth", composition=composition
    )
    named = {"labels": label, "indices": range(10, 15), "seed": 3, "epoch": 2}
    posed = claims.problem(model, image, config, **named)
    state = joint.start(posed)
    start = [
        streams.pixel_start(3, i, (3, 12, 12), PixelBudget("8/255"), epoch=2) for i in range(10, 15)
    ]
    begun = (image + torch.tensor(np.stack(start))).clamp(0, 1) - image
    torch.testing.assert_close(state["pixel"], begun, rtol=0, atol=1e-6)
    for _ in range(7):
        now = image, label, state["pixel"]
        expected, gradient = pgd_step(model, *now, radius, radius * 2.5 / 7)
        state, _ = joint.iterate(posed, state)
        sure = gradient.abs() > 1e-5 * gradient.abs().amax((1, 2, 3), keepdim=True)
        assert sure.float().mean() > 0.9
        torch.testing.assert_close(state["pixel"][sure], expected[sure], rtol=0, atol=1e-6)


def test_without_pixels_it_is_a_flow_attack(model):
    image = claims.smooth(4, 3, 12, 10)
    result = JointAttack(AttackConfig(pixel=PixelBudget(0), steps=4))(model, image)
    expected = jataug.warp.warp(image.numpy(), result.flow.float().numpy())
    np.testing.assert_allclose(result.adversarial.numpy(), expected, rtol=0, atol=1e-6)
    assert result.flow.any()
    assert not result.delta.any()


@pytest.mark.parametrize("at_run_time", [False, True])
def test_radius_zero_of_both_returns_the_image(model, at_run_time):
    image = claims.images(3, 3, 8, 8)
    if at_run_time:
        result = JointAttack()(model, image, flow=0, pixel="0")
    else:
        result = JointAttack(AttackConfig(**OFF))(model, image)
    torch.testing.assert_close(result.adversarial, image, rtol=0, atol=claims.SLACK)
    assert not result.flow.any()
    assert not result.success.any()


@pytest.mark.parametrize("branch", ["flow", "pixel"])
def test_radius_zero_at_run_time_equals_the_branch_left_out(model, branch):
    image, label = claims.smooth(4, 3, 12, 12), [0, 1, 2, 3]
    config = claims.small(AttackConfig(), steps=4)
    running = JointAttack(config)(model, image, label, **{branch: 0})
    left_out = JointAttack(config.replace(**{branch: OFF[branch]}))(model, image, label)
    # The same operators on the same numbers.
    torch.testing.assert_close(running.adversarial, left_out.adversarial, rtol=0, atol=1e-6)


@pytest.mark.parametrize("composition", ["spatial-pixel", "pixel-spatial"])
def test_no_steps_is_random_augmentation(model, composition):
    image = claims.smooth(2, 3, 9, 7)
    config = AttackConfig(composition=composition)
    result = JointAttack(config)(model, image, steps=0, seed=4)
    flow = np.stack([streams.flow_start(4, i, (9, 7), FlowBudget(0.3)) for i in range(2)])
    delta = np.stack([streams.pixel_start(4, i, (3, 9, 7), PixelBudget("8/255")) for i in range(2)])
    np.testing.assert_allclose(result.flow.numpy(), flow, rtol=0, atol=3e-4)
    if composition == "spatial-pixel":
        expected = jataug.warp.warp(image.numpy(), result.flow.float().numpy()) + delta
    else:
        expected = jataug.warp.warp(image.numpy() + delta, result.flow.float().numpy())
    np.testing.assert_allclose(result.adversarial.numpy(), expected.clip(0, 1), rtol=0, atol=1e-6)


def test_no_steps_from_zero_returns_the_image(model):
    image = claims.images(2, 3, 9, 7)
    result = JointAttack(AttackConfig(start="zero", steps=0))(model, image)
    assert torch.equal(result.adversarial, image)


# The order of an iteration.


def test_first_full_step_of_the_flow_has_the_radius_everywhere():
    image, model = claims.images(2, 3, 6, 6), claims.Linear((3, 6, 6))
    config = AttackConfig(pixel=PixelBudget(0), steps=1, start="zero")
    result = JointAttack(config)(model, image)
    length = result.flow.double().norm(dim=1)
    np.testing.assert_allclose(length[length > 0].numpy(), 0.3, rtol=2e-3)
    assert (length > 0).float().mean() > 0.95


@pytest.mark.parametrize("composition", ["spatial-pixel", "pixel-spatial"])
def test_an_accumulated_flow_warps_the_clean_image_once(model, monkeypatch, composition):
    """Claims 3 and 10."""
    image, warped = claims.smooth(3, 3, 8, 8), []

    def watched(picture, flow):
        warped.append((picture.detach(), flow.detach()))
        return warp(picture, flow)

    monkeypatch.setattr(render_module, "warp", watched)
    config = AttackConfig(composition=composition, steps=3)
    result = JointAttack(config)(model, image)
    bound = 0 if composition == "spatial-pixel" else 8 / 255 + claims.SLACK
    assert all(((picture - image).abs() <= bound).all() for picture, _ in warped)
    assert all((flow.norm(dim=1) <= 0.3 + 1e-6).all() for _, flow in warped)
    clean = image if composition == "spatial-pixel" else image + result.delta
    once = jataug.warp.warp(clean.numpy(), result.flow.float().numpy())
    if composition == "spatial-pixel":
        once = once + result.delta.numpy()
    np.testing.assert_allclose(result.adversarial.numpy(), once, rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", ["flow-pixel", "pixel-flow"])
@pytest.mark.parametrize("simultaneous", [False, True])
def test_the_second_update_sees_the_first_unless_simultaneous(model, order, simultaneous):
    image = claims.smooth(2, 3, 10, 10)
    config = AttackConfig(order=order, simultaneous=simultaneous, start="zero", steps=1)
    posed = claims.problem(model, image, config)
    start = joint.start(posed)
    found, _ = joint.iterate(posed, start)

    first, second = order.split("-")
    gradient, _ = joint.ascent(posed, start, (first,))
    halfway = joint.move(posed, start, {first: joint._step(posed, first, gradient[first])})
    gradient, _ = joint.ascent(posed, start if simultaneous else halfway, (second,))
    expected = joint.move(posed, halfway, {second: joint._step(posed, second, gradient[second])})
    torch.testing.assert_close(found[first], expected[first], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[second], expected[second], rtol=0, atol=1e-6)


def test_the_orders_and_the_simultaneous_variant_differ(model):
    image = claims.smooth(2, 3, 10, 10)
    config = claims.small(AttackConfig(), steps=3)
    variants = [
        config,
        config.replace(order="pixel-flow"),
        config.replace(simultaneous=True),
        config.replace(composition="pixel-spatial"),
        config.replace(flow_objective="truth"),
        config.replace(pixel_objective="truth"),
        config.replace(start="zero"),
    ]
    found = [JointAttack(variant)(model, image).adversarial for variant in variants]
    for one, other in itertools.combinations(found, 2):
        assert not torch.equal(one, other)


def test_forward_passes_of_an_iteration():
    calls = []

    def model(image):
        calls.append(len(image))
        return claims.Linear((3, 5, 5))(image)

    image = claims.images(2, 3, 5, 5)
    for simultaneous, expected in ((False, 6), (True, 3)):
        calls.clear()
        config = AttackConfig(simultaneous=simultaneous, steps=3)
        JointAttack(config)(model, image, [0, 1])
        # One image to learn the number of classes, the whole batch for the measurement, and once
        # more to know whether the clean images have finite logits.
        assert calls == [1] + [2] * expected + [2, 2]


# Best and last iterate.


@pytest.mark.parametrize("objective", ["truth", "margin"])
def test_best_iterate_is_never_worse_than_the_last(objective):
    image, model = claims.smooth(8, 3, 10, 10), claims.Linear((3, 10, 10), scale=0.1)
    # Steps of twice the radius overshoot, so that the last iterate is often not the best.
    config = AttackConfig(
        pixel_objective=objective, flow_objective=objective, steps=5, flow_step=0.6, pixel_step=0.06
    )
    label = model(image).argmax(1)
    last = JointAttack(config)(model, image, label)
    best = JointAttack(config.replace(keep="best"))(model, image, label)
    assert (best.success | ~last.success).all()
    level = best.success == last.success
    # The flow is cut to float16 after the choice, which moves the loss a little.
    assert (best.loss >= last.loss - 1e-3)[level].all()


def test_best_iterate_is_the_best_of_all_states(model):
    image = claims.smooth(6, 3, 10, 10)
    config = claims.small(AttackConfig.preset("evaluation"), steps=6, pixel_step=0.2, flow_step=2.0)
    posed = claims.problem(model, image, config)
    _, kept = joint._attack(posed)
    state, candidates = joint.start(posed), []
    for _ in range(7):
        with torch.no_grad():
            logits = model(render_module.render(image, state, config.composition))
        value = cross_entropy(logits, posed.label, reduction="none")
        wrong = logits.argmax(1) != posed.label
        candidates.append((wrong, value, state))
        state, _ = joint.iterate(posed, state)
    picked = []
    for i in range(6):
        ranked = [(bool(wrong[i]), float(value[i])) for wrong, value, _ in candidates]
        picked.append(max(range(7), key=ranked.__getitem__))
        for branch in ("flow", "pixel"):
            chosen = candidates[picked[-1]][2][branch][i]
            torch.testing.assert_close(kept[branch][i], chosen, rtol=0, atol=1e-6)
    assert set(picked) != {6}


def candidate(name, wrong, loss):
    state = {"pixel": torch.full((len(wrong), 1, 1, 1), float(name))}
    return Candidate(state, torch.tensor(wrong), torch.tensor(loss))


def test_misclassified_comes_before_the_loss_and_ties_keep_the_earlier():
    held = candidate(0, [False, True, False, False, True], [9.0, 1.0, 2.0, 2.0, 1.0])
    other = candidate(1, [True, False, False, False, True], [1.0, 9.0, 3.0, 2.0, 2.0])
    found = better(held, other)
    assert found.state["pixel"].flatten().tolist() == [1, 0, 1, 0, 1]
    assert found.wrong.tolist() == [True, True, False, False, True]
    assert found.loss.tolist() == [1, 1, 3, 2, 2]


def test_a_loss_that_is_known_is_not_computed_again(model):
    posed = claims.problem(model, claims.images(2, 3, 8, 8), AttackConfig.preset("evaluation"))
    posed = replace(posed, label=torch.zeros(2, dtype=int), target=torch.ones(2, dtype=int))
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    known = joint.judge(posed, {}, logits, torch.tensor([7.0, torch.nan]))
    assert known.loss.tolist() == [7, -torch.inf]
    assert known.wrong.tolist() == [False, False]
    assert joint.judge(posed, {}, logits).wrong.tolist() == [False, True]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_candidate_that_is_not_finite_never_beats_one_that_is(model, bad):
    posed = claims.problem(model, claims.images(2, 3, 8, 8), AttackConfig.preset("evaluation"))
    fine = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    posed = replace(posed, label=torch.zeros(2, dtype=int), target=torch.ones(2, dtype=int))
    broken = torch.tensor([[0.0, bad], [bad, bad]])
    first = {"pixel": torch.zeros(2, 1, 1, 1)}
    second = {"pixel": torch.ones(2, 1, 1, 1)}
    for earlier, later, expected in ((fine, broken, 0.0), (broken, fine, 1.0)):
        held = joint.judge(posed, first, earlier)
        found = better(held, joint.judge(posed, second, later))
        assert (found.state["pixel"] == expected).all()
        assert not found.wrong.any()
