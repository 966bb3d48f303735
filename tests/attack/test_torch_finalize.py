import itertools

import attack_claims as claims
import numpy as np
import pytest
import torch

import jataug.finalize
from jataug import AttackConfig, FlowBudget, PixelBudget
from jataug.attack import finalize

BRANCHES = list(itertools.product((True, False), repeat=2))
COMPOSITIONS = ["spatial-pixel", "pixel-spatial"]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def both(composition, norm, flow, pixel):
    image, radius = claims.images(4, 3, 11, 9), torch.tensor([8 / 255, 0.0, 0.3, 1.5])
    state = {"flow": noise(4, 2, 11, 9)} if flow else {}
    state |= {"pixel": 0.1 * noise(4, 3, 11, 9, seed=1)} if pixel else {}
    config = AttackConfig(
        flow=FlowBudget(0.3, norm), pixel=PixelBudget(0.1, norm), composition=composition
    )
    flow_radius = torch.tensor([9.0, 0.3, 0.0, 1.0])
    ours = finalize.finalize(image, state, {"flow": flow_radius, "pixel": radius}, config)
    theirs = jataug.finalize.finalize(
        image.numpy(),
        state["flow"].numpy() if flow else None,
        state["pixel"].numpy() if pixel else None,
        flow_radius.numpy(),
        radius.numpy(),
        config,
    )
    return ours, theirs, radius


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("flow", "pixel"), BRANCHES)
def test_equals_numpy(composition, norm, flow, pixel):
    ours, theirs, radius = both(composition, norm, flow, pixel)
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine.numpy().dtype == yours.dtype
        np.testing.assert_allclose(mine.numpy(), yours, rtol=0, atol=5e-7)
    assert np.array_equal(ours[2].numpy(), theirs[2])
    mine = finalize.quantize(ours[0], ours[1], radius).numpy()
    yours = jataug.finalize.quantize(theirs[0], theirs[1], radius.numpy())
    assert mine.shape == yours.shape == (4, 11, 9, 3)
    assert (mine == yours).mean() > 0.999


@pytest.mark.parametrize("radius", [0.0, 0.25 / 255, 0.5 / 255, 8 / 255])
def test_quantize_equals_numpy_on_the_same_input(radius):
    warped, change = claims.images(2, 3, 40, 40), 2 * claims.images(2, 3, 40, 40, seed=1) - 1
    image = (warped + radius * change).clamp(0, 1)
    per_image = torch.full((2,), radius)
    mine = finalize.quantize(image, warped, per_image).numpy()
    yours = jataug.finalize.quantize(image.numpy(), warped.numpy(), per_image.numpy())
    assert np.array_equal(mine, yours)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_flow_beyond_its_radius_is_projected(norm):
    image, radius = claims.images(3, 3, 8, 7), torch.tensor([0.1, 0.0, 0.7])
    config = AttackConfig(flow=FlowBudget(0.7, norm), pixel=PixelBudget(0))
    state = {"flow": noise(3, 2, 8, 7)}
    half = finalize.finalize(image, state, {"flow": radius, "pixel": radius}, config)[2].double()
    length = half.abs().amax(1) if norm == "linf" else half.norm(dim=1)
    assert (length.amax((1, 2)) <= radius).all()
    assert (length.amax((1, 2)) >= radius * 0.999).all()


def test_to_half_equals_numpy_bit_for_bit():
    flow = torch.cat(
        [noise(1000) * 10.0**k for k in range(-9, 4)]
        + [torch.tensor([0.0, -0.0, 1e-30, -1e-8, 6e-8, 65504.0, 65519.0, -65535.0])]
    )
    mine = finalize.to_half(flow).numpy()
    assert np.array_equal(
        mine.view(np.uint16), jataug.finalize.to_half(flow.numpy()).view(np.uint16)
    )


def test_from_levels_equals_numpy_bit_for_bit():
    levels = np.arange(256, dtype=np.uint8).reshape(2, 4, 8, 4)
    mine = finalize.from_levels(torch.from_numpy(levels))
    assert np.array_equal(mine.numpy(), jataug.finalize.from_levels(levels))
    assert mine.is_contiguous()


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_what_is_not_finite_counts_as_zero(composition):
    image = claims.images(1, 3, 4, 4)
    flow, pixel = torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4)
    flow[0, 0, 1, 1], flow[0, 1, 2, 2], pixel[0, 0, 0, 0] = torch.nan, torch.inf, -torch.inf
    config = AttackConfig(composition=composition)
    state = {"flow": flow, "pixel": pixel}
    radius = {"flow": torch.tensor([9.0]), "pixel": torch.tensor([0.1])}
    found = finalize.finalize(image, state, radius, config)
    assert torch.equal(found[0], image)
