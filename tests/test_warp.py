import numpy as np
import pytest

from jataug.warp import warp, warp_range

SIZES = [(1, 1), (1, 6), (5, 1), (2, 3), (7, 5), (4, 9)]


def random(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def oracle(image, flow):
    """Return bilinear samples at clamped coordinates, pixel by pixel in float64."""
    batch, _, height, width = image.shape
    found = np.empty(image.shape, np.float64)
    for n, y, x in np.ndindex(batch, height, width):
        column = min(max(x + float(flow[n, 0, y, x]), 0), width - 1)
        row = min(max(y + float(flow[n, 1, y, x]), 0), height - 1)
        left, top = int(column), int(row)
        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
        a, b = column - left, row - top
        picture = image[n].astype(np.float64)
        upper = (1 - a) * picture[:, top, left] + a * picture[:, top, right]
        lower = (1 - a) * picture[:, bottom, left] + a * picture[:, bottom, right]
        found[n, :, y, x] = (1 - b) * upper + b * lower
    return found


def check_against_oracle(warp):
    image, flow = random(2, 3, 7, 5), 3 * random(2, 2, 7, 5, seed=1) - 1.5
    np.testing.assert_allclose(warp(image, flow), oracle(image, flow), rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [0.3, 1.0, 2.5, 11.0])
def test_equals_bilinear_sampling(size, radius):
    image, flow = random(2, 3, *size), radius * (2 * random(2, 2, *size, seed=1) - 1)
    np.testing.assert_allclose(warp(image, flow), oracle(image, flow), rtol=0, atol=1e-13)
    single = warp(image.astype(np.float32), flow.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, oracle(image, flow), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_whole_flows_read_whole_pixels(size):
    image = random(1, 2, *size).astype(np.float32)
    flow = np.random.default_rng(3).integers(-4, 5, (1, 2, *size)).astype(np.float32)
    assert np.array_equal(warp(image, flow), oracle(image, flow).astype(np.float32))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("zero", [0.0, -0.0, 1e-30, -1e-30])
def test_zero_flow_is_the_identity_bit_for_bit(size, dtype, zero):
    image = random(2, 3, *size).astype(dtype)
    assert np.array_equal(warp(image, np.full((2, 2, *size), zero, np.float32)), image)


@pytest.mark.parametrize("shift", [(0.5, 0.0), (0.0, -0.5), (0.5, 0.5), (0.01, 0)])
def test_the_oracle_finds_a_warp_that_is_off(shift):
    check_against_oracle(warp)
    offset = np.reshape(shift, (1, 2, 1, 1))
    with pytest.raises(AssertionError):
        check_against_oracle(lambda image, flow: warp(image, flow + offset))


def test_the_oracle_finds_swapped_axes():
    with pytest.raises(AssertionError):
        check_against_oracle(lambda image, flow: warp(image, flow[:, ::-1]))


def test_a_flow_in_float16_is_not_rounded_again():
    image = random(1, 1, 6, 6)
    flow = np.full((1, 2, 6, 6), -1e-3, np.float16)
    expected = oracle(image, flow.astype(np.float64))
    np.testing.assert_allclose(warp(image, flow), expected, rtol=0, atol=1e-7)


def test_the_channels_share_the_flow_and_the_images_do_not():
    image, flow = random(2, 3, 5, 5), random(2, 2, 5, 5, seed=1)
    together = warp(image, flow)
    for n, c in np.ndindex(2, 3):
        alone = warp(image[n : n + 1, c : c + 1], flow[n : n + 1])
        assert np.array_equal(together[n, c], alone[0, 0])


def test_a_warp_cannot_enlarge_a_linf_perturbation():
    image, flow = random(1, 3, 9, 9), 5 * random(1, 2, 9, 9, seed=1)
    change = 0.1 * (2 * random(1, 3, 9, 9, seed=2) - 1)
    moved = warp(image + change, flow) - warp(image, flow)
    assert abs(moved).max() <= abs(change).max() + 1e-15


def flows(radius, size, norm, seed):
    rng = np.random.default_rng(seed)
    flow = rng.uniform(-radius, radius, (1, 2, *size))
    corner = rng.random((1, 2, *size)) < 0.3
    flow[corner] = radius * np.sign(flow[corner])
    if norm == "l2":
        flow *= np.minimum(1, radius / np.maximum(np.linalg.norm(flow, axis=1), 1e-30))[:, None]
    return flow


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [0.0, 0.3, 1.0, 1.7, 4.0])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_warp_range_holds_every_warp(size, radius, norm):
    image = random(1, 2, *size)
    low, high = warp_range(image, radius)
    for seed in range(20):
        moved = warp(image, flows(radius, size, norm, seed))
        assert (moved >= low - 1e-12).all()
        assert (moved <= high + 1e-12).all()


@pytest.mark.parametrize("radius", [0.3, 1.0, 1.7])
def test_warp_range_is_reached(radius):
    """It is no wider than the best of a dense grid of flows, for each pixel alone."""
    image = random(1, 1, 5, 4)
    low, high = warp_range(image, radius)
    stops = np.unique(np.concatenate([np.linspace(-radius, radius, 9), np.arange(-1, 2)]))
    stops = stops[abs(stops) <= radius]
    tried = np.stack(
        [
            warp(image, np.stack([np.full((1, 5, 4), dx), np.full((1, 5, 4), dy)], 1))
            for dx in stops
            for dy in stops
        ]
    )
    np.testing.assert_allclose(tried.min(0), low, rtol=0, atol=1e-12)
    np.testing.assert_allclose(tried.max(0), high, rtol=0, atol=1e-12)


def test_warp_range_of_radius_zero_is_the_image_and_leaves_it_alone():
    image = random(1, 3, 4, 4).astype(np.float32)
    kept = image.copy()
    low, high = warp_range(image, 0.0)
    assert np.array_equal(low, image)
    assert np.array_equal(high, image)
    warp_range(image, 2.0)
    assert np.array_equal(image, kept)
