import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

import jataug.warp
from jataug.attack.warp import warp

SIZES = [(1, 1), (1, 6), (5, 1), (2, 3), (7, 5), (4, 9)]


def random(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def derivative(image, flow):
    """d T / d flow from one-sided differences; exact, as T is linear between whole pixels.

    Right-sided; 0 beyond the border; from the inside on the far border.
    """
    step = 2.0**-10
    found = torch.zeros(flow.shape[0], 2, *image.shape[1:], dtype=torch.float64)
    for axis, size in ((0, flow.shape[3]), (1, flow.shape[2])):
        place = torch.arange(size, dtype=torch.float64)
        at = flow[:, axis] + (place if axis == 0 else place[:, None])
        change = torch.zeros_like(flow)
        change[:, axis] = step
        value = warp(image, flow)
        right = (warp(image, flow + change) - value) / step
        left = (value - warp(image, flow - change)) / step
        side = torch.where((at == size - 1)[:, None], left, right)
        inside = (at >= 0) & (at <= size - 1)
        found[:, axis] = side * inside[:, None]
    return found


def check_derivative(image, flow):
    flow = flow.clone().requires_grad_()
    weight = random(*image.shape, seed=9)
    (found,) = torch.autograd.grad(warp(image, flow), flow, weight)
    expected = (derivative(image, flow.detach()) * weight[:, None]).sum(2)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_flow_is_the_identity_bit_for_bit(size, dtype):
    image = random(2, 3, *size).to(dtype)
    assert torch.equal(warp(image, torch.zeros(2, 2, *size, dtype=dtype)), image)


def test_a_vanishing_negative_flow_is_the_identity():
    image = random(1, 1, 4, 4).float()
    assert torch.equal(warp(image, torch.full((1, 2, 4, 4), -1e-30)), image)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [0.3, 1.5, 8.0])
def test_equals_the_numpy_warp(size, radius):
    image, flow = random(2, 3, *size), radius * (2 * random(2, 2, *size, seed=1) - 1)
    expected = jataug.warp.warp(image.numpy(), flow.numpy())
    np.testing.assert_allclose(warp(image, flow).numpy(), expected, rtol=0, atol=1e-14)
    single = warp(image.float(), flow.float()).numpy()
    np.testing.assert_allclose(single, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dx", [-2, -1, 1, 2])
def test_a_whole_flow_reads_the_pixel_it_points_to(dx):
    image = random(1, 1, 3, 6)
    flow = torch.zeros(1, 2, 3, 6, dtype=torch.float64)
    flow[:, 0] = dx
    column = (torch.arange(6) + dx).clamp(0, 5)
    assert torch.equal(warp(image, flow), image[..., column])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [0.4, 3.0])
def test_derivative_away_from_whole_pixels(size, radius):
    flow = radius * (2 * random(2, 2, *size, seed=3) - 1)
    whole = flow.round()
    flow = torch.where((flow - whole).abs() < 0.01, whole + 0.25, flow)
    check_derivative(random(2, 3, *size), flow)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dx", [-7, -2, -1, 0, 1, 2, 7])
@pytest.mark.parametrize("dy", [-1, 0, 1, 3])
def test_derivative_at_whole_pixels_and_on_the_borders(size, dx, dy):
    flow = torch.empty(1, 2, *size, dtype=torch.float64)
    flow[:, 0], flow[:, 1] = dx, dy
    check_derivative(random(1, 2, *size), flow)


def test_derivative_at_zero_flow_points_inward_on_both_borders():
    image = torch.tensor([[[[0.0, 1.0, 3.0, 7.0]]]])
    flow = torch.zeros(1, 2, 1, 4, requires_grad=True)
    (found,) = torch.autograd.grad(warp(image, flow).sum(), flow)
    assert found[0, 0, 0].tolist() == [1.0, 2.0, 4.0, 4.0]
    assert found[0, 1, 0].tolist() == [0.0] * 4


def test_derivative_is_zero_beyond_the_border():
    image = torch.tensor([[[[0.0, 1.0, 3.0, 7.0]]]])
    flow = torch.tensor([-1e-3, -2.0, 2.0, 1e-3]).view(1, 1, 1, 4).repeat(1, 2, 1, 1)
    flow.requires_grad_()
    (found,) = torch.autograd.grad(warp(image, flow).sum(), flow)
    assert not found.any()


@pytest.mark.parametrize("size", [(4, 3), (2, 5)])
def test_gradcheck(size):
    image = random(1, 2, *size).requires_grad_()
    flow = (0.2 + 0.6 * random(1, 2, *size, seed=2) - 1).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, flow))


@pytest.mark.parametrize("size", [(4, 4), (5, 8)])
def test_agrees_with_grid_sample_away_from_whole_pixels(size):
    height, width = size
    image = random(2, 3, *size).requires_grad_()
    flow = 0.1 + 0.8 * random(2, 2, *size, seed=4) + torch.randint(-2, 2, (2, 2, *size))
    flow.requires_grad_()
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = 2 * (column + flow[:, 0]) / (width - 1) - 1
    y = 2 * (row + flow[:, 1]) / (height - 1) - 1
    grid = torch.stack([x, y], -1)
    theirs = grid_sample(image, grid, padding_mode="border", align_corners=True)
    ours = warp(image, flow)
    torch.testing.assert_close(ours, theirs)
    weight = random(*ours.shape, seed=5)
    for mine, yours in zip(
        torch.autograd.grad(ours, (image, flow), weight),
        torch.autograd.grad(theirs, (image, flow), weight),
        strict=True,
    ):
        torch.testing.assert_close(mine, yours)


def test_constant_regions_have_exactly_no_gradient():
    image = torch.full((1, 3, 6, 6), 0.3)
    flow = (random(1, 2, 6, 6).float() - 0.5).requires_grad_()
    weight = random(1, 3, 6, 6, seed=7).float()
    (found,) = torch.autograd.grad(warp(image, flow), flow, weight)
    assert not found.any()
