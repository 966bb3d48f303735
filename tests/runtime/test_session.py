"""What a session returns."""

from collections import Counter

import numpy as np
import pytest
import torch

from jataug import AttackConfig, FlowBudget, PixelBudget, Session
from jataug.finalize import from_levels
from jataug.runtime import session as session_module
from jataug.warp import warp

from .sessions import CONFIG, FIELDS, images, levels, same

SHAPES = {
    "flow": (2, 16, 16),
    "loss": (),
    "logits": (10,),
    "success": (),
    "label": (),
    "target": (),
}


def test_float_images_give_float_images(session):
    result = session.attack(images(5))
    assert result.adversarial.dtype == np.float32
    np.testing.assert_array_equal(result.adversarial, result.exact)
    for name in FIELDS:
        assert getattr(result, name).shape == (5, *SHAPES.get(name, (3, 16, 16))), name
    assert (result.flow.dtype, result.delta.dtype) == (np.float16, np.float32)
    assert not result.failed.any()
    assert result.adversarial.flags.writeable


def test_8_bit_images_give_8_bit_images(session):
    result = session.attack(levels(5))
    assert (result.adversarial.dtype, result.adversarial.shape) == (np.uint8, (5, 16, 16, 3))
    assert (result.exact.dtype, result.exact.shape) == (np.float32, (5, 3, 16, 16))
    assert np.abs(from_levels(result.adversarial) - result.exact).max() <= 1 / 255 + 1e-6
    np.testing.assert_array_equal(
        session.predict(levels(3)), session.predict(from_levels(levels(3)))
    )


@pytest.mark.parametrize("make", [images, levels])
def test_other_libraries_go_in_and_out_by_dlpack(session, make):
    array = make(3)
    expected = session.attack(array, np.arange(3))
    found = session.attack(torch.from_numpy(array), torch.arange(3), torch.arange(3))
    same(found, expected)
    back = torch.from_dlpack(found.adversarial)
    assert back.data_ptr() == found.adversarial.ctypes.data
    np.testing.assert_array_equal(np.from_dlpack(back), expected.adversarial)
    grown = torch.from_numpy(images(2)).requires_grad_()
    np.testing.assert_array_equal(session.predict(grown), session.predict(images(2)))


def test_images_are_not_changed(session):
    for given in (images(3), levels(3)):
        before = given.copy()
        session.attack(given)
        np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("make", [images, levels])
@pytest.mark.parametrize("preset", ["claim-1", "claim-8", "evaluation"])
def test_what_is_measured_is_the_image_that_is_returned(tiny_net, exported_attack, preset, make):
    config = AttackConfig.preset(preset, flow=CONFIG.flow, pixel=CONFIG.pixel, steps=2)
    with Session.open(exported_attack(tiny_net.path, config), device="cpu") as opened:
        result = opened.attack(make(6), np.arange(6))
        np.testing.assert_array_equal(opened.predict(result.adversarial), result.logits)
    np.testing.assert_array_equal(result.success, result.logits.argmax(1) != np.arange(6))
    np.testing.assert_array_equal(result.prediction, result.logits.argmax(1))
    logits = torch.tensor(result.logits, dtype=torch.float64)
    truth, target = (
        torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none")
        for labels in (result.label, result.target)
    )
    expected = truth if preset == "evaluation" else -target
    np.testing.assert_allclose(result.loss, expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize("make", [images, levels])
@pytest.mark.parametrize("composition", ["spatial-pixel", "pixel-spatial"])
@pytest.mark.parametrize("norms", [("l2", "linf"), ("linf", "l2")])
def test_results_obey_their_budgets(tiny_net, exported_attack, make, composition, norms):
    """As the method words them, in float64, on what is returned; a radius of its own each."""
    config = AttackConfig(
        flow=FlowBudget(1.3, norms[0]),
        pixel=PixelBudget("16/255" if norms[1] == "linf" else 1.0, norms[1]),
        composition=composition,
        steps=3,
    )
    given = make(6)
    flow = np.array([0, 0.05, 0.3, 0.7, 1.0, 1.3], np.float32)
    pixel = np.array([8, 0.25, 0, 0.5, 1, 16], np.float32) / np.float32(255)
    pixel = pixel if norms[1] == "linf" else pixel * 20
    with Session.open(exported_attack(tiny_net.path, config), device="cpu") as opened:
        result = opened.attack(given, flow=flow, pixel=pixel)

    vectors = result.flow.astype(np.float64)
    length = np.linalg.norm(vectors, np.inf if norms[0] == "linf" else 2, axis=1).max((1, 2))
    assert (length <= flow).all()
    assert length[5] > 1.2

    clean = from_levels(given) if given.dtype == np.uint8 else given
    stored = from_levels(result.adversarial) if given.dtype == np.uint8 else result.adversarial
    exact, stored = result.exact.astype(np.float64), stored.astype(np.float64)
    warped = warp(clean.astype(np.float64), vectors)
    bound = pixel.astype(np.float64)
    if norms[1] == "linf":
        assert (np.abs(exact - warped).max((1, 2, 3)) <= bound + 2e-6).all()
        limit = np.maximum(bound, 0.5 / 255) if given.dtype == np.uint8 else bound
        assert (np.abs(stored - warped).max((1, 2, 3)) <= limit + 2e-6).all()
    elif composition == "spatial-pixel":
        distance = np.sqrt(np.square(stored - warped).sum((1, 2, 3)))
        rounding = np.sqrt(768) * 0.5 / 255 if given.dtype == np.uint8 else 0
        assert (distance <= bound + rounding + 2e-6).all()
    else:
        size = np.sqrt(np.square(result.delta.astype(np.float64)).sum((1, 2, 3)))
        assert (size <= bound + 2e-6).all()
    assert stored.min() >= 0
    assert stored.max() <= 1


@pytest.mark.parametrize("composition", ["spatial-pixel", "pixel-spatial"])
def test_flow_and_perturbation_make_the_image(tiny_net, exported_attack, composition):
    config = CONFIG.replace(composition=composition)
    with Session.open(exported_attack(tiny_net.path, config), device="cpu") as opened:
        result = opened.attack(images(4))
    flow = result.flow.astype(np.float32)
    if composition == "spatial-pixel":
        expected = warp(images(4), flow) + result.delta
    else:
        expected = warp(images(4) + result.delta, flow)
    np.testing.assert_allclose(result.adversarial, expected, rtol=0, atol=1e-6)


def test_providers_are_asked_for_once(path, monkeypatch):
    with Session.open(path, device="cpu") as opened:
        made, make = [], opened._engine_type
        monkeypatch.setattr(opened, "_engine_type", lambda *given: made.append(1) or make(*given))
        assert opened.providers == opened.providers == ["CPUExecutionProvider"]
        assert len(made) == 1


@pytest.mark.parametrize("labels", [None, [1, 2, 3, 4]])
def test_nothing_is_checked_twice(path, monkeypatch, labels):
    counts = Counter()
    for name in ("as_images", "as_labels"):
        check = getattr(session_module, name)

        def counted(*given, name=name, check=check):
            counts[name] += 1
            return check(*given)

        monkeypatch.setattr(session_module, name, counted)
    with Session.open(path, device="cpu") as opened:
        opened.attack(images(4), labels)
    assert counts == {"as_images": 1} | ({} if labels is None else {"as_labels": 1})


def test_asking_for_providers_decides_nothing(path):
    with Session.open(path, device="cpu") as opened:
        assert opened.providers == ["CPUExecutionProvider"]
        assert opened.batch_size is None
        assert opened.predict(images(4)).shape == (4, 10)
        assert opened.batch_size == 4
