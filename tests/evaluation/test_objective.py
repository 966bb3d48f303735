"""Objectives: values as torch and pyautoattack have them, cotangents as differences have them."""

import numpy as np
import pytest
import torch

from jataug.attack.objective import cotangent as torch_cotangent
from jataug.attack.objective import loss as torch_loss
from jataug.evaluation.attacks.losses import cotangent, margin, softmax, value

ALL = ["truth", "target", "margin", "dlr", "dlr-targeted"]
LABEL, TARGET = np.array([0, 4, 2]), np.array([1, 3, 0])


def logits(scale: float = 1.0, classes: int = 6) -> np.ndarray:
    return (scale * np.random.default_rng(0).normal(size=(3, classes))).astype(np.float32)


@pytest.mark.parametrize("objective", ALL)
@pytest.mark.parametrize("classes", [5, 6, 10])
def test_cotangent_is_the_gradient_up_to_its_scale(objective: str, classes: int) -> None:
    z = logits(classes=classes)
    z[np.arange(3), LABEL] += 3  # the ratio is flat where the label comes third
    found = cotangent(objective, z, LABEL, TARGET)
    for k in range(3):
        z64, gradient = z[k : k + 1].astype(np.float64), np.zeros(classes)
        for j in range(classes):
            step = np.zeros(classes)
            step[j] = 1e-6
            ahead, behind = (
                value(objective, z64 + side * step, LABEL[k : k + 1], TARGET[k : k + 1])
                for side in (1, -1)
            )
            gradient[j] = (ahead - behind)[0] / 2e-6
        np.testing.assert_allclose(found[k], gradient / np.abs(gradient).max(), atol=1e-5)


@pytest.mark.parametrize("objective", ["truth", "target", "margin"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_agrees_with_the_torch_attack(objective: str, scale: float) -> None:
    z, y, t = (torch.from_numpy(a) for a in (logits(scale), LABEL, TARGET))
    arrays = (logits(scale), LABEL, TARGET)
    np.testing.assert_allclose(
        value(objective, *arrays), torch_loss(objective, z.double(), y, t), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        cotangent(objective, *arrays), torch_cotangent(objective, z, y, t), atol=1e-6
    )


def test_ratios_are_those_of_the_paper() -> None:
    z = np.array([[3.0, 1.0, 0.0, -1.0, -2.0]])
    y, t = np.array([0]), np.array([2])
    assert value("dlr", z, y, t) == pytest.approx(-(3 - 1) / (3 - 0))
    assert value("dlr-targeted", z, y, t) == pytest.approx(-(3 - 0) / (3 - (0 - 1) / 2))


def test_three_classes_or_fewer_have_a_ratio() -> None:
    for classes in (2, 3):
        z = logits(classes=classes)
        y = np.zeros(3, np.int64)
        for objective in ("dlr", "dlr-targeted"):
            assert np.isfinite(value(objective, z, y, y + 1)).all()
            assert np.abs(cotangent(objective, z, y, y + 1)).max() == 1


def test_confident_images_keep_a_loss_and_a_cotangent() -> None:
    z = np.array([[100.0, 0.0, -50.0, 1.0]], np.float32)
    y = np.array([0])
    assert 0 < value("truth", z, y, y)[0] < 1e-40
    assert np.abs(cotangent("truth", z, y, y)).max() == 1


def test_logits_that_are_not_finite_lose() -> None:
    z = logits()
    z[0, 1], z[1, 2] = np.nan, np.inf
    for objective in ALL:
        found = value(objective, z, LABEL, TARGET)
        assert (found[:2] == -np.inf).all()
        assert np.isfinite(found[2])
        assert not cotangent(objective, z, LABEL, TARGET)[:2].any()


def test_margin_and_softmax() -> None:
    z = np.array([[2.0, 5.0, 1.0], [2.0, 5.0, 1.0]], np.float32)
    np.testing.assert_array_equal(margin(z, np.array([0, 1])), [3.0, -3.0])
    np.testing.assert_allclose(softmax(z).sum(1), 1)
