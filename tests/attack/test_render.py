import attack_claims as claims
import pytest
import torch

from jataug import AttackConfig
from jataug.attack import joint
from jataug.attack.render import base, clip, render
from jataug.attack.warp import warp

COMPOSITIONS = ["spatial-pixel", "pixel-spatial"]


def state():
    flow = claims.images(2, 2, 6, 5, seed=1) - 0.5
    return {"flow": flow, "pixel": 2 * claims.images(2, 3, 6, 5, seed=2) - 1}


def test_clip_is_exact_and_lets_every_gradient_pass():
    image = torch.tensor([-3.3, -0.0, 0.1, 0.7, 1.0, 1e7], requires_grad=True)
    found = clip(image)
    assert torch.equal(found, image.detach().clamp(0, 1))
    (gradient,) = torch.autograd.grad(found.sum(), image)
    assert torch.equal(gradient, torch.ones(6))


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_the_gradient_of_a_render_is_that_of_one_without_clips(composition):
    image = claims.images(2, 3, 6, 5)
    flow, pixel = (value.requires_grad_() for value in state().values())
    found = render(image, {"flow": flow, "pixel": pixel}, composition)
    weight = claims.images(2, 3, 6, 5, seed=3) - 0.5
    mine = torch.autograd.grad(found, (flow, pixel), weight)
    if composition == "spatial-pixel":
        without = warp(image, flow) + pixel
        assert ((without < 0) | (without > 1)).any()
    else:
        # The flow moves the clipped picture; the perturbation passes through the clip.
        added = image + pixel
        without = warp(added + (added.clamp(0, 1) - added).detach(), flow)
        assert ((added < 0) | (added > 1)).any()
    yours = torch.autograd.grad(without, (flow, pixel), weight)
    for one, other in zip(mine, yours, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_each_composition_is_its_formula():
    image, at = claims.images(2, 3, 6, 5), state()
    found = render(image, at, "spatial-pixel")
    assert torch.equal(found, (warp(image, at["flow"]) + at["pixel"]).clamp(0, 1))
    found = render(image, at, "pixel-spatial")
    assert torch.equal(found, warp((image + at["pixel"]).clamp(0, 1), at["flow"]))


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_a_branch_that_is_off_changes_nothing(composition):
    image, at = claims.images(2, 3, 6, 5), state()
    assert torch.equal(render(image, {}, composition), image)
    assert torch.equal(render(image, {"flow": at["flow"]}, composition), warp(image, at["flow"]))
    added = (image + at["pixel"]).clamp(0, 1)
    assert torch.equal(render(image, {"pixel": at["pixel"]}, composition), added)


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_the_perturbation_is_projected_against_the_flow_after_its_own_update(composition):
    image = claims.images(3, 3, 8, 8).round()
    posed = claims.problem(
        claims.Linear((3, 8, 8)), image, AttackConfig(composition=composition, start="zero")
    )
    step = {
        "flow": 0.2 * claims.images(3, 2, 8, 8, seed=1) - 0.1,
        "pixel": 0.06 * claims.images(3, 3, 8, 8, seed=2) - 0.03,
    }
    found = joint.move(posed, joint.start(posed), step)
    assert torch.equal(found["flow"], step["flow"])
    ground = warp(image, step["flow"]) if composition == "spatial-pixel" else image
    assert torch.equal(base(image, found, composition), ground)
    expected = (ground + step["pixel"]).clamp(0, 1) - ground
    assert torch.equal(found["pixel"], expected)
    assert not torch.equal(expected, step["pixel"])
