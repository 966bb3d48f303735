import numpy as np
import pytest
import torch

from jataug.attack.projection import ball, direction


def field(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1e-40, 1e-24, 1e-12, 1.0, 1e12, 1e30, 1e38])
def test_generalized_sign_keeps_the_direction_at_any_scale(scale):
    gradient = torch.tensor([3.0, -4.0]).view(1, 2, 1, 1) / 4 * scale
    found = direction("flow", gradient, "l2").flatten()
    torch.testing.assert_close(found, torch.tensor([0.6, -0.8]), rtol=1e-4, atol=0)


def test_generalized_sign_is_zero_only_where_the_vector_is():
    gradient = torch.zeros(1, 2, 1, 3)
    gradient[0, :, 0, 1] = torch.tensor([0.0, -1e-30])
    found = direction("flow", gradient, "l2")
    assert found[0, :, 0].tolist() == [[0, 0, 0], [0, -1, 0]]


def test_generalized_sign_is_per_pixel_for_the_flow_and_per_image_for_the_pixels():
    gradient = field(3, 2, 5, 4)
    flow = direction("flow", gradient, "l2").norm(dim=1)
    torch.testing.assert_close(flow, torch.ones(3, 5, 4))
    pixel = direction("pixel", gradient, "l2")
    torch.testing.assert_close(pixel.flatten(1).norm(dim=1), torch.ones(3))
    torch.testing.assert_close(pixel[1], gradient[1] / gradient[1].norm())


@pytest.mark.parametrize("branch", ["flow", "pixel"])
def test_linf_direction_is_the_elementwise_sign(branch):
    gradient = torch.tensor([0.0, -1e-30, 2.0, -5.0]).view(1, 2, 2, 1)
    assert direction(branch, gradient, "linf").flatten().tolist() == [0, -1, 1, -1]


@pytest.mark.parametrize("branch", ["flow", "pixel"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_non_finite_entries_count_as_zero(branch, norm):
    gradient = torch.tensor([torch.nan, 3.0, torch.inf, -torch.inf]).view(1, 2, 2, 1)
    found = direction(branch, gradient, norm)
    expected = direction(branch, torch.tensor([0.0, 3.0, 0, 0]).view(1, 2, 2, 1), norm)
    assert torch.equal(found, expected)
    assert found.isfinite().all()


@pytest.mark.parametrize("branch", ["flow", "pixel"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("size", [1, 9, 64])
def test_ball_is_exact_and_idempotent_in_float32(branch, norm, size):
    radius = torch.tensor([0.0, 1e-6, 0.1, 8 / 255, 0.3, 1.0, 3.7, 50.0])
    value = field(8, 2, size, size) * radius.clamp_min(0.1).view(-1, 1, 1, 1)
    found = ball(branch, value, radius, norm)
    axes = (1,) if branch == "flow" else (1, 2, 3)
    if norm == "linf":
        length = found.abs().amax(axes, keepdim=True)
    else:
        length = found.square().sum(axes, keepdim=True).sqrt()
    assert (length <= radius.view(-1, 1, 1, 1)).all()
    assert torch.equal(ball(branch, found, radius, norm), found)


@pytest.mark.parametrize("branch", ["flow", "pixel"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_ball_leaves_what_is_inside_and_keeps_the_direction_outside(branch, norm):
    value = torch.tensor([0.3, 0.4]).view(1, 2, 1, 1)
    assert torch.equal(ball(branch, value, torch.tensor([0.5]), norm), value)
    found = ball(branch, 10 * value, torch.tensor([0.5]), norm).flatten()
    expected = torch.tensor([0.3, 0.4] if norm == "l2" else [0.5, 0.5])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_ball_of_radius_zero_is_zero_not_nan():
    for value in (torch.zeros(1, 2, 3, 3), field(1, 2, 3, 3)):
        for norm in ("l2", "linf"):
            assert not ball("flow", value, torch.zeros(1), norm).any()


def test_l2_ball_wastes_less_than_a_millionth_of_the_radius():
    found = ball("flow", field(1, 2, 50, 50) * 10, torch.tensor([0.3]), "l2")
    length = found.double().norm(dim=1).numpy()
    far = length > 0.29
    np.testing.assert_allclose(length[far], 0.3, rtol=1e-6)
    assert far.mean() > 0.99
