"""The warp as a graph, against jataug.warp, differences in float64, and its own adjoint."""

import numpy as np
import pytest

import jataug.warp
from jataug.export.attack import warp as module
from jataug.export.attack.warp import LARGEST_STENCIL, Warp, reach_of

from .building import compute
from .checking import on_onnx, on_runtime

SIZES = [(7, 5), (5, 9), (2, 3), (1, 6), (4, 1), (1, 1)]
INSIDE = np.s_[:, 2:-2, 2:-2]
RADII = [0.3, 1.0, 1.9, 2.5, 3.7, 5.2]


def random(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def flows(radius, *size, batch=2, seed=1):
    """Flows up to the radius, some of them on whole pixels and exactly at the radius."""
    drawn = np.random.default_rng(seed).uniform(-radius, radius, (batch, 2, *size))
    choice = random(*drawn.shape, seed=seed + 1)
    drawn = np.where(choice < 0.2, np.trunc(drawn), drawn)
    return np.where(choice > 0.9, radius * np.sign(drawn), drawn)


def warped(image, flow, reach, run=on_runtime):
    return compute(lambda image, flow: Warp(flow, reach)(image), run, image=image, flow=flow)


def flow_gradient(image, flow, cotangent, reach, run=on_onnx):
    def make(image, flow, cotangent):
        return Warp(flow, reach).flow_gradient(image, cotangent)

    return compute(make, run, image=image, flow=flow, cotangent=cotangent)


def image_gradient(flow, cotangent, reach, run=on_onnx):
    def make(flow, cotangent):
        return Warp(flow, reach).image_gradient(cotangent)

    return compute(make, run, flow=flow, cotangent=cotangent)


def check_warp(radius, size):
    image, flow = random(2, 3, *size), flows(radius, *size)
    expected, reach = jataug.warp.warp(image, flow), reach_of(radius)
    found = warped(image, flow, reach, on_onnx)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    single = warped(image.astype(np.float32), flow.astype(np.float32), reach)
    expected = jataug.warp.warp(image.astype(np.float32), flow.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=5e-7)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", RADII)
def test_equals_the_warp_in_numpy(radius, size):
    check_warp(radius, size)


@pytest.mark.parametrize("shift", [(0.5, 0.0), (0.0, -0.5), (0.01, 0.0)])
@pytest.mark.parametrize("radius", [0.3, 5.2])
def test_finds_a_warp_that_is_off(monkeypatch, radius, shift):
    class Off(Warp):
        def __init__(self, flow, reach):
            offset = flow.graph.constant(np.reshape(shift, (1, 2, 1, 1)), flow.dtype)
            super().__init__(flow + offset, reach)

    monkeypatch.setitem(globals(), "Warp", Off)
    with pytest.raises(AssertionError):
        check_warp(radius, (7, 5))


def test_finds_a_reach_that_is_too_short(monkeypatch):
    monkeypatch.setitem(globals(), "reach_of", lambda radius: int(radius))
    with pytest.raises(AssertionError):
        check_warp(1.9, (7, 5))


@pytest.mark.parametrize(("radius", "reach"), [(0, 1), (0.3, 1), (1.0, 2), (1.99, 2), (3.0, 4)])
def test_reach(radius, reach):
    assert reach_of(radius) == reach


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reach", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_flow_is_the_identity_bit_for_bit(size, reach, zero):
    image = random(2, 3, *size).astype(np.float32)
    found = warped(image, np.full((2, 2, *size), zero, np.float32), reach)
    assert np.array_equal(found, image)


@pytest.mark.parametrize("radius", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("size", SIZES)
def test_gathers_equal_the_stencil(monkeypatch, radius, size):
    image, flow = random(2, 3, *size), flows(radius, *size)
    cotangent, reach = random(2, 3, *size, seed=5) - 0.5, reach_of(radius)
    assert reach <= LARGEST_STENCIL
    stencil = warped(image, flow, reach, on_onnx), flow_gradient(image, flow, cotangent, reach)
    monkeypatch.setattr(module, "LARGEST_STENCIL", 0)
    gathers = warped(image, flow, reach, on_onnx), flow_gradient(image, flow, cotangent, reach)
    for one, other in zip(gathers, stencil, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


# Derivatives.


def inner(size, radius, seed=1):
    """Flows away from whole pixels and, as clamping has a kink there, from the border."""
    flow = flows(radius, *size, seed=seed)
    near = np.abs(flow - np.rint(flow)) < 0.01
    return np.where(near, flow + 0.02 * np.where(flow > 0, -1, 1), flow)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", RADII)
def test_flow_gradient_against_differences(radius, size):
    image, flow = random(2, 3, *size), inner(size, radius)
    cotangent = random(2, 3, *size, seed=5) - 0.5
    found = flow_gradient(image, flow, cotangent, reach_of(radius))
    step = 1e-6
    for channel in (0, 1):
        change = np.zeros((1, 2, 1, 1))
        change[:, channel] = step
        ahead, behind = (jataug.warp.warp(image, flow + s * change) for s in (1, -1))
        slope = (cotangent * (ahead - behind)).sum(1) / (2 * step)
        np.testing.assert_allclose(found[:, channel], slope, rtol=0, atol=1e-8)


@pytest.mark.parametrize("reach", [1, 2, 5])
def test_at_whole_pixels_the_derivative_is_the_right_sided_one(reach):
    image, cotangent = random(1, 3, 6, 7), random(1, 3, 6, 7, seed=5) - 0.5
    shift = min(reach - 1, 1)
    for whole in range(-shift, shift + 1):
        flow = np.full((1, 2, 6, 7), float(whole))
        found = flow_gradient(image, flow, cotangent, reach)
        step = 1e-6
        for channel in (0, 1):
            change = np.zeros((1, 2, 1, 1))
            change[:, channel] = step
            ahead, here = (jataug.warp.warp(image, flow + s * change) for s in (1, 0))
            slope = (cotangent * (ahead - here)).sum(1) / step
            np.testing.assert_allclose(found[:, channel][INSIDE], slope[INSIDE], atol=1e-8)


@pytest.mark.parametrize("reach", [1, 2, 3, 5])
def test_on_the_border_the_derivative_points_inward_and_beyond_it_is_zero(reach):
    ramp = np.tile(np.arange(5.0), (1, 1, 4, 1))
    ones = np.ones_like(ramp)

    def by_x(dx):
        flow = np.zeros((1, 2, 4, 5))
        flow[:, 0] = dx
        return flow_gradient(ramp, flow, ones, reach)[0, 0]

    np.testing.assert_allclose(by_x(0.0), 1, atol=1e-12)  # one per pixel, the far border too
    beyond = by_x(0.5)
    np.testing.assert_allclose(beyond[:, :-1], 1, atol=1e-12)
    np.testing.assert_allclose(beyond[:, -1], 0, atol=1e-12)
    before = by_x(-0.5)
    np.testing.assert_allclose(before[:, 1:], 1, atol=1e-12)
    np.testing.assert_allclose(before[:, 0], 0, atol=1e-12)


@pytest.mark.parametrize("reach", [2, 3, 5])
def test_landing_on_the_border_from_afar_points_inward(reach):
    ramp = np.tile(np.arange(5.0).reshape(-1, 1), (1, 1, 1, 4))
    flow = np.zeros((1, 2, 5, 4))
    flow[:, 1, 3] = 1.0  # row 3 lands on row 4, the last
    flow[:, 1, 4] = 1.0  # row 4 lands beyond it
    flow[:, 1, 1] = -1.0  # row 1 lands on row 0
    found = flow_gradient(ramp, flow, np.ones_like(ramp), reach)[0, 1]
    np.testing.assert_allclose(found[[0, 1, 2, 3]], 1, atol=1e-12)
    np.testing.assert_allclose(found[4], 0, atol=1e-12)


@pytest.mark.parametrize("run", [on_onnx, on_runtime])
@pytest.mark.parametrize("radius", RADII)
def test_a_constant_image_has_no_flow_gradient_at_all(radius, run):
    """Rounding noise would be turned into full steps."""
    image = np.full((2, 3, 6, 7), 0.1, np.float32)
    flow = flows(radius, 6, 7).astype(np.float32)
    cotangent = (random(2, 3, 6, 7, seed=5) - 0.5).astype(np.float32)
    found = flow_gradient(image, flow, cotangent, reach_of(radius), run)
    assert np.array_equal(found, np.zeros_like(found))


def check_adjoint(radius, size):
    flow, reach = flows(radius, *size), reach_of(radius)
    direction, cotangent = random(2, 3, *size) - 0.5, random(2, 3, *size, seed=5) - 0.5
    forward = (cotangent * warped(direction, flow, reach, on_onnx)).sum()
    backward = (image_gradient(flow, cotangent, reach) * direction).sum()
    np.testing.assert_allclose(backward, forward, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", RADII)
def test_image_gradient_is_the_adjoint(radius, size):
    check_adjoint(radius, size)


def test_finds_an_adjoint_that_loses_the_border(monkeypatch):
    def crop(padded, reach, axis):
        size = int(padded.shape[axis])
        return padded.slice([reach], [size - reach], [axis])

    monkeypatch.setattr(module, "_fold_border", crop)
    with pytest.raises(AssertionError):
        check_adjoint(1.9, (7, 5))
