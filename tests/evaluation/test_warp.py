"""The warp's derivatives in numpy: against torch's, float64 differences, and the adjoint's law."""

import numpy as np
import pytest
import torch

from jataug.attack.warp import warp as torch_warp
from jataug.evaluation.attacks.warp import Warped
from jataug.warp import warp

SIZES = [(5, 7), (1, 6), (4, 1), (1, 1), (2, 2)]


def drawn(size: tuple[int, int], largest: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    image = random.random((3, 2, *size))
    flow = random.uniform(-largest, largest, (3, 2, *size))
    return image, flow


def torch_gradients(
    image: np.ndarray, flow: np.ndarray, cotangent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    x, w = (torch.from_numpy(a).requires_grad_() for a in (image, flow))
    torch.autograd.backward(torch_warp(x, w), torch.from_numpy(cotangent))
    return x.grad.numpy(), w.grad.numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("largest", [0.3, 2.5, 9.0])
@pytest.mark.parametrize("whole", [False, True])
def test_derivatives_are_torch_s(size: tuple[int, int], largest: float, whole: bool) -> None:
    image, flow = drawn(size, largest)
    if whole:  # where there are two derivatives, and the border
        flow = np.round(flow)
    cotangent = np.random.default_rng(1).normal(size=image.shape)
    warped = Warped(image, flow)
    by_image, by_flow = torch_gradients(image, flow, cotangent)
    np.testing.assert_allclose(warped.flow_gradient(cotangent), by_flow, atol=1e-12)
    np.testing.assert_allclose(warped.image_gradient(cotangent), by_image, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_image_is_the_warp_s_bit_for_bit(size: tuple[int, int], kind: type) -> None:
    for largest in (0.0, 0.3, 2.5):
        image, flow = (a.astype(kind) for a in drawn(size, largest))
        for w in (flow, np.round(flow)):
            np.testing.assert_array_equal(Warped(image, w).image, warp(image, w))


def test_flow_gradient_is_the_difference_quotient() -> None:
    image, flow = drawn((6, 5), 1.7)
    flow = np.where(np.abs(flow - np.round(flow)) < 1e-3, 0.5, flow)  # away from the kinks
    cotangent = np.random.default_rng(1).normal(size=image.shape)
    gradient, step = Warped(image, flow).flow_gradient(cotangent), 1e-6
    random = np.random.default_rng(2)
    for _ in range(5):
        way = random.normal(size=flow.shape)
        ahead, behind = (warp(image, flow + side * step * way) for side in (1, -1))
        measured = (cotangent * (ahead - behind)).sum() / (2 * step)
        assert measured == pytest.approx((gradient * way).sum(), rel=1e-6, abs=1e-8)


def test_image_gradient_is_the_adjoint() -> None:
    image, flow = drawn((6, 5), 3.0)
    cotangent = np.random.default_rng(1).normal(size=image.shape)
    moved = (cotangent * warp(image, flow)).sum()
    assert moved == pytest.approx((Warped(image, flow).image_gradient(cotangent) * image).sum())


def test_flat_regions_have_no_flow_gradient() -> None:
    image = np.full((1, 3, 6, 6), 0.1, np.float32)
    _, flow = drawn((6, 6), 0.3)
    cotangent = np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    assert not Warped(image, flow[:1].astype(np.float32)).flow_gradient(cotangent).any()
