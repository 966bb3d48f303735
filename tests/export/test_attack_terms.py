"""The small functions that an iteration is made of: directions, projections, cotangents."""

import numpy as np
import pytest

from jataug.export.attack import body as attack
from jataug.export.attack.body import Inputs, cotangent, direction, finite, into_ball, loss

from .attack_claims import exact
from .building import compute

AXES = {"flow": [1], "image": [1, 2, 3]}


def along(gradient, norm, axes):
    return compute(lambda g: direction(finite(g), norm, axes), g=gradient.astype(np.float32))


def vectors(*values):
    """Return 2-vectors as the flow gradient of a row of pixels: (1, 2, 1, pixels)."""
    return np.array(values, np.float32).T.reshape(1, 2, 1, -1)


@pytest.mark.parametrize("scale", [1e-37, 1e-24, 1e-10, 1.0, 1e18, 1e30, 5e37])
def test_flow_directions_are_unit_vectors_at_every_scale(scale):
    gradient = vectors((3, 4), (-1, 0), (0, 0.5), (1e-3, 1))
    found = along(gradient * np.float32(scale), "l2", [1])
    expected = gradient / np.linalg.norm(gradient, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("scale", [1e-37, 1e-24, 1.0, 1e30, 1e38])
def test_pixel_directions_have_length_one_per_image(scale):
    gradient = np.random.default_rng(0).uniform(-1, 1, (3, 3, 5, 4)).astype(np.float32)
    found = along(gradient * np.float32(scale), "l2", [1, 2, 3])
    length = np.linalg.norm(gradient.reshape(3, -1), axis=1).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(found, gradient / length, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_a_zero_gradient_has_no_direction(norm, axes):
    zero = np.zeros((2, 2, 3, 3), np.float32)
    assert np.array_equal(along(zero, norm, axes), zero)


def test_only_pixels_without_gradient_stay():
    found = along(vectors((0, 0), (1e-24, 0), (0, 0)), "l2", [1])
    np.testing.assert_array_equal(found, vectors((0, 0), (1, 0), (0, 0)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_entries_that_are_not_finite_count_as_zero(norm, bad):
    found = along(vectors((bad, 2), (bad, bad), (-3, 0)), norm, [1])
    np.testing.assert_array_equal(found, vectors((0, 1), (0, 0), (-1, 0)))


def projected(term, radius, norm, axes):
    return compute(
        lambda t, r: into_ball(t, attack.per_image(r), norm, axes),
        t=term.astype(np.float32),
        r=np.asarray(radius, np.float32),
    )


def length(array, norm, axes):
    axes = tuple(axes)
    if norm == "linf":
        return np.abs(array).max(axes, keepdims=True)
    return np.sqrt(np.square(array.astype(np.float64)).sum(axes, keepdims=True))


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
@pytest.mark.parametrize("spread", [1e-6, 1.0, 1.0000002, 1e6])
def test_projections_stay_inside_and_change_nothing_twice(norm, axes, spread):
    """Half a million vectors at and around the radius, for the flow; images up to 64x64."""
    random = np.random.default_rng(0)
    radius = np.array([0.3, 1.7, 8 / 255, 1e-3], np.float32)
    term = random.standard_normal((4, 2, 250, 250) if axes == [1] else (4, 3, 64, 64))
    bound = radius.reshape(4, 1, 1, 1)
    term = (term / length(term, norm, axes) * bound * spread).astype(np.float32)
    once = projected(term, radius, norm, axes)
    assert (length(once, norm, axes) <= bound * (1 + 2.0**-23)).all()
    inside = np.broadcast_to(length(term, norm, axes) <= bound * (1 - 2.0**-20), term.shape)
    np.testing.assert_array_equal(once[inside], term[inside])
    nearest = np.clip(term, -bound, bound) if norm == "linf" else term / max(spread, 1)
    np.testing.assert_allclose(once, nearest, rtol=1e-6)
    assert np.array_equal(projected(once, radius, norm, axes), once)


def test_flow_vectors_are_never_longer_than_the_radius_in_float32():
    flow = np.random.default_rng(1).standard_normal((1, 2, 700, 700)).astype(np.float32)
    for radius in np.float32([0.3, 1.0, 2.5]):
        found = projected(flow, [radius], "l2", [1])
        assert (np.sqrt(np.square(found).sum(1)) <= radius).all()


def test_large_images_stay_inside_and_change_nothing_twice():
    """A sum over a million float32 at once would be off by more than the margin."""
    delta = np.random.default_rng(0).standard_normal((1, 3, 640, 512)).astype(np.float32)
    once = projected(delta, [2.0], "l2", [1, 2, 3])
    assert length(once, "l2", [1, 2, 3]) <= 2 * (1 + 2.0**-23)
    assert np.array_equal(projected(once, [2.0], "l2", [1, 2, 3]), once)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_radius_zero_gives_zero(norm, axes):
    term = np.random.default_rng(0).standard_normal((2, 2, 3, 3))
    term[0, :, 0] = 0
    assert not projected(term, [0, 0], norm, axes).any()


LOGITS = {
    "spread": 3 * np.random.default_rng(0).standard_normal((6, 5)),
    "confident": np.array([[90.0, 0, 1, 2, 3]] * 6),
    "tied": np.zeros((6, 5)),
    "large": np.array([[0, 1e4, -1e4, 3e4, -3e4]] * 6),
}
LABEL, TARGET = np.array([0, 1, 2, 3, 4, 0]), np.array([1, 0, 4, 2, 3, 4])


def of_logits(function, objective, logits):
    def make(logits, label, target):
        inputs = Inputs(logits, label, target, None, None, None, None)
        return function(logits, inputs, objective)

    arrays = {"logits": logits, "label": LABEL, "target": TARGET}
    return compute(make, **arrays)


@pytest.mark.parametrize("objective", ["truth", "target", "margin"])
@pytest.mark.parametrize("kind", ["spread", "tied"])
def test_cotangents_point_along_the_exact_gradient(objective, kind):
    logits = LOGITS[kind]
    found = of_logits(cotangent, objective, logits.astype(np.float32))
    _, gradient = exact(objective, logits, LABEL, TARGET)
    factor = (found * gradient).sum(1) / np.square(gradient).sum(1)
    assert (factor > 0).all()
    np.testing.assert_allclose(found, factor[:, None] * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", ["truth", "target", "margin"])
@pytest.mark.parametrize("kind", LOGITS)
def test_cotangents_are_well_scaled(objective, kind):
    """The gradient itself vanishes in float32 where the model is sure of the label."""
    found = of_logits(cotangent, objective, LOGITS[kind].astype(np.float32))
    np.testing.assert_allclose(np.abs(found).max(1), 1, rtol=1e-6)
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-6)


def test_the_raw_gradient_would_vanish():
    _, gradient = exact("truth", LOGITS["confident"], LABEL, TARGET)
    assert (np.abs(gradient[[0, 5]]) < 1e-36).all()


@pytest.mark.parametrize("objective", ["truth", "target", "margin"])
@pytest.mark.parametrize("kind", LOGITS)
def test_losses_are_per_image(objective, kind):
    value, _ = exact(objective, LOGITS[kind], LABEL, TARGET)
    found = of_logits(loss, objective, LOGITS[kind].astype(np.float32))
    np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5)
