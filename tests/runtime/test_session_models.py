"""Sessions of odd models: logits that are not finite, a batch of their own."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from jataug import AttackConfig, FlowBudget, PixelBudget, Session
from jataug.export import export_attack
from jataug.finalize import from_levels

BUDGETS = {"flow": FlowBudget(0.5), "pixel": PixelBudget("16/255")}


def model(nodes, weights, batch="batch"):
    image = helper.make_tensor_value_info("image", 1, [batch, 3, 6, 6])
    logits = helper.make_tensor_value_info("logits", 1, [batch, 4])
    arrays = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "net", [image], [logits], arrays)
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def weight(rows, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, 4)).astype(np.float32)


def not_finite_above(level):
    """Logits sqrt(level - mean) @ w: NaN for images brighter than `level`, else class 3."""
    return model(
        [
            helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
            helper.make_node("Sub", ["level", "mean"], ["below"]),
            helper.make_node("Sqrt", ["below"], ["root"]),
            helper.make_node("MatMul", ["root", "w"], ["logits"]),
        ],
        {
            "axes": np.array([2, 3]),
            "level": np.float32([level]),
            "w": weight(3) + np.float32([0, 0, 0, 9]),
        },
    )


OFFSET = np.arange(8, dtype=np.float32).reshape(2, 4)


def in_pairs():
    """A model with an offset for the first image and one for the second, and none for a third."""
    return model(
        [
            helper.make_node("Flatten", ["image"], ["pixels"]),
            helper.make_node("MatMul", ["pixels", "w"], ["scores"]),
            helper.make_node("Add", ["scores", "offset"], ["logits"]),
        ],
        {"offset": OFFSET, "w": weight(108)},
        batch=2,
    )


def opened(proto, config, path, form="step", **options):
    export_attack(proto, config, path, form=form, check=False)
    return Session.open(path, device="cpu", **options)


def bright_and_dark(count):
    """Images of mean 0.8 and of mean 0.2 in turns."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (count, 3, 6, 6))
    means = np.where(np.arange(count) % 2 == 0, 0.8, 0.2).reshape(-1, 1, 1, 1)
    return (means + noise).astype(np.float32)


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize("form", ["step", "unrolled", "loop"])
@pytest.mark.parametrize("eight_bit", [False, True], ids=["float", "8-bit"])
def test_an_image_whose_logits_are_not_finite_is_kept_clean(tmp_path, keep, form, eight_bit):
    config = AttackConfig.preset("evaluation", **BUDGETS, steps=2, keep=keep)
    images = bright_and_dark(5)
    if eight_bit:
        images = np.rint(255 * images).astype(np.uint8).transpose(0, 2, 3, 1)
    with opened(not_finite_above(0.5), config, tmp_path / "a.onnx", form) as session:
        result = session.attack(images, np.zeros(5, np.int64))
    bad = np.array([True, False, True, False, True])
    np.testing.assert_array_equal(result.failed, bad)
    np.testing.assert_array_equal(result.adversarial[bad], images[bad])
    assert (result.adversarial[~bad] != images[~bad]).any((1, 2, 3)).all()
    assert not result.flow[bad].any()
    assert not result.delta[bad].any()
    assert not result.success[bad].any()
    assert np.isfinite(result.logits[~bad]).all()
    assert np.isfinite(result.adversarial).all()


def near_the_edge(path, form, keep):
    """Return the clean losses, and the result of an attack that is too bright in the end."""
    config = AttackConfig.preset(
        "evaluation", **BUDGETS, steps=4, start="zero", pixel_step=0.02, flow_step=0, keep=keep
    )
    images = np.full((4, 3, 6, 6), 0.5, np.float32)
    images += np.random.default_rng(0).uniform(-0.02, 0.02, images.shape).astype(np.float32)
    with opened(not_finite_above(0.55), config, path, form) as session:
        return session.attack(images, steps=0).loss, session.attack(images)


@pytest.mark.parametrize("form", ["step", "unrolled", "loop"])
def test_an_iterate_whose_logits_are_not_finite_is_never_the_best(tmp_path, form):
    _, last = near_the_edge(tmp_path / "last.onnx", form, "last")
    assert last.failed.all()  # else this test is about nothing
    clean, best = near_the_edge(tmp_path / "best.onnx", form, "best")
    assert not best.failed.any()
    assert (best.loss > clean).all()


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("form", ["step", "loop"])
def test_a_fixed_batch_is_padded_and_split(tmp_path, form, count):
    config = AttackConfig(**BUDGETS, steps=2)
    images = bright_and_dark(6)
    with opened(in_pairs(), config, tmp_path / "a.onnx", form, batch_size=64) as session:
        result = session.attack(images[:count])
        whole = session.attack(images)
        assert session.manifest["batch"] == 2
        assert session.predict(images[:count]).shape == (count, 4)
    np.testing.assert_array_equal(result.adversarial, whole.adversarial[:count])
    np.testing.assert_array_equal(result.logits.argmax(1), result.prediction)


def test_a_fixed_batch_gives_the_right_logits(tmp_path):
    images, offset = bright_and_dark(3), OFFSET[[0, 1, 0]]
    with opened(in_pairs(), AttackConfig(**BUDGETS), tmp_path / "a.onnx") as session:
        expected = images.reshape(3, -1) @ weight(108) + offset
        np.testing.assert_allclose(session.predict(images), expected, rtol=1e-4, atol=1e-5)
        eight_bit = np.rint(255 * images).astype(np.uint8).transpose(0, 2, 3, 1)
        expected = from_levels(eight_bit).reshape(3, -1) @ weight(108) + offset
        np.testing.assert_allclose(session.predict(eight_bit), expected, rtol=1e-4, atol=1e-5)
