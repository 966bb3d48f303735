import itertools

import numpy as np
import pytest

from jataug import AttackConfig, FlowBudget, PixelBudget
from jataug.finalize import finalize, from_levels, project, quantize, reached_levels, to_half
from jataug.warp import warp

RADII = [0.0, 0.1 / 255, 0.25 / 255, 0.5 / 255, 1 / 255, 2.3 / 255, 8 / 255, 0.2]
BRANCHES = list(itertools.product((True, False), repeat=2))
COMPOSITIONS = ["spatial-pixel", "pixel-spatial"]


def random(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def noise(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def config(composition="spatial-pixel", norm="linf"):
    return AttackConfig(flow=FlowBudget(0.3), pixel=PixelBudget(0.1, norm), composition=composition)


def uncentred(result):
    """Return what a result stores as 8 bits, as (batch, channel, height, width) in float64."""
    return result.transpose(0, 3, 1, 2).astype(np.float64) / 255


# Levels.


def test_from_levels_is_the_correctly_rounded_quotient():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1)
    found = from_levels(levels)
    assert found.shape == (1, 1, 1, 256)
    assert found.dtype == np.float32
    exact = (np.arange(256) / 255).astype(np.float32)
    assert np.array_equal(found.ravel(), exact)
    product = np.arange(256, dtype=np.float32) * np.float32(1 / 255)
    assert 0.4 < (product != exact).mean() < 0.6


def test_from_levels_moves_the_channels_to_the_front():
    levels = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    assert from_levels(levels)[0, 2, 1, 3] == np.float32(levels[0, 1, 3, 2] / 255)


@pytest.mark.parametrize("radius", RADII)
def test_clean_levels_survive(radius):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    image = from_levels(levels)
    assert np.array_equal(quantize(image, image, np.array([radius], np.float32)), levels)


# Flow.


@pytest.mark.parametrize("scale", [1e-9, 1e-7, 1e-5, 1e-3, 0.3, 1.0, 7.0, 1e3])
def test_to_half_truncates_towards_zero(scale):
    flow = noise(1, 2, 60, 60, scale=scale)
    half = to_half(flow)
    assert half.dtype == np.float16
    wide = half.astype(np.float64)
    assert (abs(wide) <= abs(flow.astype(np.float64))).all()
    assert (wide * flow >= 0).all()
    # The next float16 away from zero would be too long: nothing more than needed is cut off.
    further = np.nextafter(half, np.copysign(np.float16(np.inf), flow).astype(np.float16))
    grows = abs(further.astype(np.float64)) > abs(flow.astype(np.float64))
    assert grows.all()


def test_rounding_to_half_would_lengthen_half_of_the_flows():
    flow = noise(1, 2, 60, 60)
    assert (abs(flow.astype(np.float16)) > abs(flow)).mean() > 0.4
    assert not (abs(to_half(flow)) > abs(flow)).any()


def test_to_half_keeps_what_float16_holds():
    values = np.array([0.0, 0.25, -1.5, 65504, 2.0**-24, -(2.0**-24)], np.float32)
    assert np.array_equal(to_half(values), values.astype(np.float16))


def test_to_half_of_what_is_too_large_is_the_largest():
    found = to_half(np.array([1e6, -70000.0], np.float32))
    assert found.tolist() == [65504, -65504]


@pytest.mark.parametrize("radius", [0.05, 0.3, 1.0, 3.3])
def test_to_half_keeps_the_flow_budget(radius):
    angle = np.linspace(0, 2 * np.pi, 20000)
    flow = radius * np.stack([np.cos(angle), np.sin(angle)]).reshape(1, 2, 100, 200)
    half = to_half(flow.astype(np.float32)).astype(np.float64)
    before = np.linalg.norm(flow.astype(np.float32).astype(np.float64), axis=1)
    assert (np.linalg.norm(half, axis=1) <= before).all()


# Projection.


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_project_is_exact_and_idempotent(norm):
    radius = np.array([0.0, 1e-6, 8 / 255, 0.7, 30.0], np.float32)
    found = project(noise(5, 3, 20, 20), radius, norm)
    if norm == "linf":
        length = abs(found).max((1, 2, 3))
    else:
        length = np.sqrt(np.square(found).sum((1, 2, 3)))
    assert (length <= radius).all()
    assert np.array_equal(project(found, radius, norm), found)
    assert not found[0].any()


def test_project_leaves_what_is_inside():
    delta = noise(2, 3, 4, 4, scale=0.01)
    for norm in ("l2", "linf"):
        assert np.array_equal(project(delta, np.array([1.0, 1.0]), norm), delta)


# The order: project the flow, truncate it, render, project the perturbation, clip.


FAR = np.full(3, 99, np.float32)
"""Flow radii that no flow of these tests reaches."""


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_flow_beyond_its_radius_is_projected(composition, norm):
    image, radius = random(3, 3, 8, 7), np.array([0.1, 0.0, 0.7], np.float32)
    w = noise(3, 2, 8, 7)
    given = config(composition).replace(flow=FlowBudget(0.7, norm))
    found, warped, half, _ = finalize(image, w, None, radius, radius, given)
    wide = half.astype(np.float64)
    length = np.abs(wide).max(1) if norm == "linf" else np.linalg.norm(wide, axis=1)
    assert (length.max((1, 2)) <= radius).all()
    assert (length.max((1, 2)) >= radius * 0.999).all()
    assert np.array_equal(half, to_half(project(w, radius, norm, (1,))))
    assert np.array_equal(found, warp(image, half.astype(np.float32)))
    assert np.array_equal(found, warped)
    assert np.array_equal(found[1], image[1])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("radius", [0.05, 0.3, 1.0, 3.3])
def test_a_flow_inside_its_radius_keeps_every_bit(norm, radius):
    each, image = np.full(2, radius, np.float32), random(2, 1, 90, 80)
    w = project(noise(2, 2, 90, 80, scale=radius), each, norm, (1,))
    given = config().replace(flow=FlowBudget(radius, norm))
    found = finalize(image, w, None, each, each, given)
    assert np.array_equal(found[2], to_half(w))
    assert np.array_equal(found[0], warp(image, to_half(w).astype(np.float32)))


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("flow", "pixel"), BRANCHES)
def test_the_image_is_rendered_with_what_is_stored(composition, norm, flow, pixel):
    image, radius = random(3, 3, 8, 7), np.array([8 / 255, 0.0, 0.3], np.float32)
    w = noise(3, 2, 8, 7, scale=0.4) if flow else None
    d = noise(3, 3, 8, 7, seed=1, scale=0.1) if pixel else None
    found, warped, half, delta = finalize(image, w, d, FAR[:3], radius, config(composition, norm))

    assert half.dtype == np.float16
    assert np.array_equal(half, to_half(w) if flow else np.zeros((3, 2, 8, 7)))
    stored = half.astype(np.float32)
    assert np.array_equal(warped, warp(image, stored))
    inside = project(d, radius, norm) if pixel else np.zeros_like(image)
    if composition == "spatial-pixel":
        expected = np.clip(warped + inside, 0, 1)
        assert np.array_equal(delta, expected - warped)
    else:
        expected = warp(np.clip(image + inside, 0, 1), stored)
        assert np.array_equal(delta, np.clip(image + inside, 0, 1) - image)
    assert np.array_equal(found, expected)
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.dtype == warped.dtype == delta.dtype == np.float32


def test_saving_the_flow_never_changes_the_image():
    """Finalising what was finalised gives the same image."""
    image, radius = random(2, 3, 8, 7), np.full(2, 8 / 255, np.float32)
    w, d = noise(2, 2, 8, 7), noise(2, 3, 8, 7, seed=1, scale=0.1)
    first = finalize(image, w, d, FAR[:2], radius, config())
    again = finalize(image, first[2].astype(np.float32), first[3], FAR[:2], radius, config())
    assert np.array_equal(first[2], again[2])
    np.testing.assert_allclose(first[0], again[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_what_is_not_finite_counts_as_zero(composition):
    image = random(1, 3, 4, 4)
    w, d = np.zeros((1, 2, 4, 4), np.float32), np.zeros((1, 3, 4, 4), np.float32)
    w[0, 0, 1, 1], w[0, 1, 2, 2], d[0, 0, 0, 0] = np.nan, np.inf, -np.inf
    found = finalize(image, w, d, FAR[:1], np.array([0.1], np.float32), config(composition))
    assert np.array_equal(found[0], image)


# Budgets of the images, float and 8 bits.


def attacked(composition, norm, radius, seed=0):
    image = random(2, 3, 24, 20, seed=seed)
    image[:, :, :4] = np.round(image[:, :, :4])
    w = noise(2, 2, 24, 20, seed=seed + 1)
    sign = np.sign(noise(2, 3, 24, 20, seed=seed + 2))
    extreme = sign * radius if norm == "linf" else sign * radius / np.sqrt(sign[0].size)
    each = np.full(2, radius, np.float32)
    given = config(composition, norm)
    result = finalize(image, w, extreme.astype(np.float32), FAR[:2], each, given)
    return result, each


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("radius", RADII)
def test_linf_budget_of_float_images(composition, radius):
    (found, warped, _, _), _ = attacked(composition, "linf", radius)
    change = abs(found.astype(np.float64) - warped.astype(np.float64))
    assert change.max() <= np.float32(radius) + 2e-7


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_budget_of_float_images_for_a_recomputed_warp(composition):
    """README, What is promised: 2e-7. The attack's own T is nearer than one in float64."""
    most = 0.0
    for seed, radius in itertools.product(range(8), (4 / 255, 8 / 255, 0.3)):
        image, sign = random(4, 3, 40, 40, seed=seed), np.sign(noise(4, 3, 40, 40, seed=seed + 2))
        w, each = noise(4, 2, 40, 40, seed=seed + 1), np.full(4, radius, np.float32)
        given = config(composition).replace(flow=FlowBudget(1))
        found, _, half, _ = finalize(image, w, each[0] * sign, FAR[:1].repeat(4), each, given)
        exact = warp(image.astype(np.float64), half.astype(np.float64))
        most = max(most, abs(found - exact).max() - radius)
    assert 4e-8 < most <= 2e-7


def check_linf_levels(quantize, composition, radius):
    (found, warped, _, _), each = attacked(composition, "linf", radius)
    change = abs(uncentred(quantize(found, warped, each)) - warped.astype(np.float64))
    assert change.max() <= max(radius, 0.5 / 255) + 2e-6


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("radius", RADII)
def test_linf_budget_of_levels(composition, radius):
    check_linf_levels(quantize, composition, radius)


def plainly(found, warped, radius):
    return np.rint(255 * found).astype(np.uint8).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("radius", [0.25 / 255, 2.3 / 255, 8 / 255])
def test_plain_rounding_breaks_the_budget(radius):
    with pytest.raises(AssertionError):
        check_linf_levels(plainly, "spatial-pixel", radius)


def test_plain_rounding_breaks_half_of_the_extreme_pixels():
    warped = 0.2 + 0.6 * random(1, 3, 100, 100)
    radius = np.float32(8 / 255)
    found = warped + radius * np.sign(noise(1, 3, 100, 100))
    over = abs(uncentred(plainly(found, warped, radius)) - warped) > 8 / 255 + 2e-6
    assert 0.45 < over.mean() < 0.55


@pytest.mark.parametrize("radius", RADII)
def test_l2_budget_of_levels(radius):
    (found, warped, _, _), each = attacked("spatial-pixel", "l2", 100 * radius)
    change = uncentred(quantize(found, warped, each)) - warped
    length = np.linalg.norm(change.reshape(2, -1), axis=1)
    assert (length <= 100 * radius + np.sqrt(change[0].size) * 0.5 / 255 + 1e-5).all()


@pytest.mark.parametrize(
    ("radius", "share"), [(0.0, 0.0), (0.25 / 255, 0.5), (0.5 / 255, 1.0), (8 / 255, 1.0)]
)
def test_how_many_pixels_have_a_level_within_the_budget(radius, share):
    """And what is stored where there is none: the level nearest the warped image."""
    warped = random(1, 3, 200, 200)
    found = np.clip(warped + np.float32(radius), 0, 1)
    stored = uncentred(quantize(found, warped, np.array([radius], np.float32)))
    nearest = np.rint(255 * warped.astype(np.float64)) / 255
    fits = abs(nearest - warped) <= radius + 1e-6
    assert fits.mean() == pytest.approx(share, abs=0.02)
    inside = abs(stored - warped) <= radius + 2e-6
    assert inside[fits].all()
    assert np.array_equal(stored[~fits], nearest[~fits])


@pytest.mark.parametrize("levels", [0.3, 0.999, 1, 1.25, 7.9, 7.9999, 8, 8.5])
def test_how_many_levels_a_radius_reaches(levels):
    """From a pixel that is a level: of an image that is not warped, or in a flat region."""
    radius = np.float32(levels / 255)
    warped = from_levels(np.arange(50, 200, dtype=np.uint8).reshape(1, 1, 150, 1))
    stored = quantize(warped + radius, warped, np.array([radius]))
    assert set((stored.ravel() - np.arange(50, 200)).tolist()) == {reached_levels(levels / 255)}
    assert reached_levels(levels / 255) == (8 if levels == 7.9999 else int(levels))


def test_a_pixel_between_two_levels_may_go_as_far_as_the_radius():
    warped, radius = 0.2 + 0.6 * random(1, 3, 100, 100), np.float32(1.25 / 255)
    change = uncentred(quantize(warped + radius, warped, np.array([radius]))) - warped
    assert 1.24 / 255 < change.max() <= 1.25 / 255 + 2e-6
    assert change.min() > 0.24 / 255


@pytest.mark.parametrize("radius", [0.6 / 255, 8 / 255, 0.2])
def test_the_level_is_the_nearest_that_fits(radius):
    warped, change = random(1, 3, 30, 30), 2 * random(1, 3, 30, 30, seed=1) - 1
    found = np.clip(warped + np.float32(radius) * change, 0, 1)
    stored = uncentred(quantize(found, warped, np.array([radius], np.float32)))
    every = np.arange(256).reshape(-1, 1, 1, 1, 1) / 255
    fits = abs(every - warped.astype(np.float64)) <= radius + 1e-6
    distance = np.where(fits, abs(every - found.astype(np.float64)), np.inf).min(0)
    np.testing.assert_allclose(abs(stored - found), distance, rtol=0, atol=1e-12)


def test_every_image_has_its_own_radius():
    warped = random(2, 1, 8, 8)
    found = np.clip(warped + np.float32(0.1), 0, 1)
    both = quantize(found, warped, np.array([0.1, 0.0], np.float32))
    for i, radius in enumerate((0.1, 0.0)):
        alone = quantize(found[i : i + 1], warped[i : i + 1], np.array([radius], np.float32))
        assert np.array_equal(both[i], alone[0])
    assert np.array_equal(uncentred(both)[1], np.rint(255 * warped.astype(np.float64))[1] / 255)
