"""The l2 projection of the perturbation: one function in numpy, in torch and in the graph, the
nearest point that is in the ball and keeps the image in [0, 1].
"""

import numpy as np
import pytest
import torch

from jataug import AttackConfig, FlowBudget, PixelBudget
from jataug.attack import JointAttack
from jataug.attack.projection import ball
from jataug.export.attack.body import clip01, into_ball, per_image
from jataug.finalize import project

from .building import artifact, compute, one_call, start

RADII = np.array([0, 1e-6, 0.05, 0.5, 2, 6], np.float32)
SIZE = (3, 12, 11)


def by_numpy(delta, base, radius):
    return np.clip(base + project(delta, radius, "l2", base=base), 0, 1) - base


def by_torch(delta, base, radius):
    delta, base, radius = map(torch.from_numpy, (delta, base, radius))
    return ((base + ball("pixel", delta, radius, "l2", base)).clamp(0, 1) - base).numpy()


def by_graph(delta, base, radius):
    def make(delta, base, radius):
        found = into_ball(delta, per_image(radius), "l2", [1, 2, 3], base)
        return clip01(base + found) - base

    return compute(make, delta=delta, base=base, radius=radius)


EVERY = {"numpy": by_numpy, "torch": by_torch, "graph": by_graph}


def images(kind, count=6):
    random = np.random.default_rng(3)
    values = random.random((count, *SIZE))
    return {
        "grey": 0.5 + 0 * values,
        "uniform": values,
        "black and white": values.round(),
        "saturated": np.clip(3 * values - 1, 0, 1),
    }[kind].astype(np.float32)


def steps(radius, share=1.0):
    """A point of the ball, and a step of some radii from it in a direction of its own."""
    random = np.random.default_rng(4)
    found = np.zeros((len(radius), *SIZE))
    for scale in (1.0, share):
        away = random.standard_normal(found.shape) ** 3
        away /= np.sqrt(np.square(away).sum((1, 2, 3), keepdims=True))
        found += scale * radius.reshape(-1, 1, 1, 1) * away
    return found.astype(np.float32)


def nearest(delta, base, radius):
    """The projection by bisection, in float64."""
    delta, base = delta.astype(np.float64), base.astype(np.float64)
    out = np.zeros_like(delta)
    for row, bound in enumerate(radius.astype(np.float64)):
        low, high = 0.0, 1.0
        for _ in range(100):
            middle = high if low == 0 and high == 1 else (low + high) / 2
            shrunk = np.clip(base[row] + middle * delta[row], 0, 1) - base[row]
            inside = np.linalg.norm(shrunk) <= bound
            low, high = (middle, high) if inside else (low, middle)
            if low == 1:
                break
            high = high if high < 1 else 1 - 1e-16
        out[row] = np.clip(base[row] + low * delta[row], 0, 1) - base[row]
    return out


def length(delta):
    return np.sqrt(np.square(delta.astype(np.float64)).sum((1, 2, 3)))


KINDS = ("grey", "uniform", "black and white", "saturated")


@pytest.mark.parametrize("how", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_nearest_point(how, kind):
    base, delta = images(kind), steps(RADII, share=0.25)
    found, expected = how(delta, base, RADII), nearest(delta, base, RADII)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert (base + found >= 0).all()
    assert (base + found <= 1).all()


@pytest.mark.parametrize("how", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 1.0, 20.0])
def test_it_is_inside_and_a_second_time_changes_nothing(how, kind, share):
    base, delta = images(kind), steps(RADII, share)
    once = how(delta, base, RADII)
    rounding = 2.0**-24 * np.sqrt(once[0].size)  # of the sum with the image
    assert (length(once) <= RADII * (1 + 2.0**-23) + rounding).all()
    np.testing.assert_allclose(how(once, base, RADII), once, rtol=0, atol=5e-7)
    assert np.isfinite(once).all()
    assert not once[0].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_all_three_are_one(kind, share):
    base, delta = images(kind), steps(RADII, share)
    found = [how(delta, base, RADII) for how in EVERY.values()]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", EVERY.values(), ids=EVERY)
def test_what_is_inside_is_only_clipped(how):
    base, delta = images("black and white"), steps(RADII * np.float32(0.3), 1)
    expected = np.clip(base + delta, 0, 1) - base
    assert np.array_equal(how(delta, base, RADII), expected)


@pytest.mark.parametrize("how", EVERY.values(), ids=EVERY)
def test_odd_perturbations_give_no_nan(how):
    base = images("black and white", 4)
    delta = np.zeros_like(base)
    delta[1], delta[2], delta[3, 0, 0, 0] = 1e15, 1e-30, 1e15
    for radius in (0, 1e-30, 0.5, 100):
        each = np.full(4, radius, np.float32)
        found = how(delta, base, each)
        assert np.isfinite(found).all()
        assert (length(found) <= each + 2.0**-24 * np.sqrt(found[0].size)).all()


@pytest.mark.parametrize("how", EVERY.values(), ids=EVERY)
def test_every_image_has_its_own_radius(how):
    base, delta = images("uniform"), steps(np.ones(len(RADII), np.float32))
    together = how(delta, base, RADII)
    for row in range(len(RADII)):
        one = slice(row, row + 1)
        alone = how(delta[one], base[one], RADII[one])
        np.testing.assert_allclose(together[one], alone, rtol=0, atol=1e-6)


# The attacks use it.

CONFIG = AttackConfig(flow=FlowBudget(0.3), pixel=PixelBudget(2.0, "l2"), pixel_step=4.0)


@pytest.mark.parametrize("composition", ["spatial-pixel", "pixel-spatial"])
def test_the_graph_uses_the_whole_radius(tiny_net, composition):
    model, manifest = artifact(tiny_net.path, CONFIG.replace(composition=composition))
    feeds = start(manifest, 6)
    feeds["image"] = np.random.default_rng(0).random(feeds["image"].shape).round()
    feeds["image"] = feeds["image"].astype(np.float32)
    found = length(one_call(model, feeds)["next_delta"])
    assert (found <= 2 + 1e-5).all()
    assert (found >= 2 * 0.999).all()


@pytest.mark.parametrize("composition", ["spatial-pixel", "pixel-spatial"])
def test_the_torch_attack_uses_the_whole_radius(tiny_net, composition):
    image = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)).round()
    config = CONFIG.replace(composition=composition, flow=FlowBudget(0), steps=2)
    found = length(JointAttack(config)(tiny_net.module, image).delta.numpy())
    assert (found <= 2 + 1e-5).all()
    assert (found >= 2 * 0.999).all()
