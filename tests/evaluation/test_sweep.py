"""Curves, map and smallest radii: on a linear model, whose smallest radius has a closed form."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jataug.evaluation import evaluate
from jataug.evaluation.attacks.perturbation import Context
from jataug.evaluation.curves import minimal, sweep_curve, sweep_map
from jataug.evaluation.images import open_images
from jataug.evaluation.models.model import Seed
from jataug.evaluation.results_folder import Folder
from jataug.evaluation.runner import Runner

RADII = (0.02, 0.05, 0.1, 0.2)
ROUNDS = 6


class Linear:
    """Logits w x + b of images (1, 4, 4); two classes, so that the gradient points the shortest
    way.
    """

    kind, provider = "onnx", "numpy"
    image_shape, classes = (1, 4, 4), 2

    def __init__(self) -> None:
        self.weight = np.random.default_rng(3).normal(size=(2, 16)).astype(np.float32)
        self.bias = -self.weight.sum(1) / 2  # grey is on every border

    def logits(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1) @ self.weight.T + self.bias

    def gradient(self, images: np.ndarray, seed: Seed) -> tuple[np.ndarray, np.ndarray]:
        logits = self.logits(images)
        return logits, (seed(logits) @ self.weight).reshape(images.shape)

    def smallest(self, images: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The linf radius at which the other class draws level: the difference of logits over the
        l1 norm of the difference of weights.
        """
        z = self.logits(images).astype(np.float64)
        gap = np.where(label == 0, z[:, 0] - z[:, 1], z[:, 1] - z[:, 0])
        return gap / np.abs(self.weight[0].astype(np.float64) - self.weight[1]).sum()


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    """Images around mid-grey, so that no radius here meets black or white."""
    levels = np.random.default_rng(1).integers(100, 156, (40, 4, 4), np.uint8)
    images = levels[:, None].astype(np.float32) / np.float32(255)
    label = Linear().logits(images).argmax(1)
    label[:3] = 1 - label[:3]  # wrong to begin with
    np.savez(tmp_path / "grey.npz", images=levels, labels=label.astype(np.int64))
    return tmp_path / "grey.npz"


def runner_of(model: Any, path: Path) -> Runner:
    images = open_images(
        path, (1, 4, 4), 2, labels="source", classes=None, resize=None, crop=None, limit=None
    )
    return Runner(
        "linear", model, images, Context(), (0.3, 0.1), batch_size=16, folder=Folder(None, {}),
        place="0",
    )  # fmt: skip


def test_bisection_finds_the_exact_radius(grey: Path) -> None:
    model = Linear()
    runner = runner_of(model, grey)
    clean = runner.clean()
    found = sweep_curve(runner, clean, "pixel", RADII, 20, ROUNDS)
    exact = model.smallest(runner.images.read(0, 40), clean.label)
    right = clean.right
    assert right.sum() == 37
    assert (found["radius"][~right] == 0).all()
    radius, exact = found["radius"][right], exact[right]
    known = np.isfinite(radius)
    assert known.sum() > 20
    # Never below what is possible, never more than the last bisection's width above.
    width = np.max(np.diff([0, *RADII])) / 2**ROUNDS
    assert (radius[known] >= exact[known] - 1e-6).all()
    assert (radius[known] <= exact[known] + width + 1e-4).all()
    assert (exact[~known] > RADII[-1] - 1e-4).all()
    assert np.median(radius[known] - exact[known]) < width
    summary = minimal("pixel", RADII, found, clean, ROUNDS)
    assert summary is not None
    assert (summary.found, summary.total) == (known.sum(), 37)
    assert summary.median == pytest.approx(np.sort(radius)[18])
    np.testing.assert_array_equal(found["broken"][right], exact[:, None] < np.array(RADII))


def test_a_curve_never_rises_and_keeps_what_was_wrong(grey: Path) -> None:
    runner = runner_of(Linear(), grey)
    clean = runner.clean()
    broken = sweep_curve(runner, clean, "flow", (0.2, 0.5, 1.5), 5, 2)["broken"]
    assert (broken[~clean.right]).all()
    assert (broken[:, 1:] >= broken[:, :-1]).all()
    assert broken[clean.right, 0].mean() < broken[clean.right, -1].mean()


def test_map_is_monotone_and_its_border_is_the_curves(grey: Path) -> None:
    model = Linear()
    runner = runner_of(model, grey)
    clean = runner.clean()
    flow, pixel = (0.0, 0.02, 0.06), (0.0, 0.003, 0.008)
    broken = sweep_map(runner, clean, flow, pixel, 10)["broken"]
    assert broken.shape == (40, 3, 3)
    np.testing.assert_array_equal(broken[:, 0, 0], ~clean.right)
    assert (broken[:, 1:] >= broken[:, :-1]).all()
    assert (broken[:, :, 1:] >= broken[:, :, :-1]).all()
    exact = model.smallest(runner.images.read(0, 40), clean.label)
    for j in (1, 2):
        np.testing.assert_array_equal(broken[:, 0, j], (exact < pixel[j]) | ~clean.right)
    assert broken[:, 2, 2].sum() > max(broken[:, 2, 0].sum(), broken[:, 0, 2].sum())


def test_no_image_right_has_no_smallest_radius(grey: Path) -> None:
    report = evaluate(Linear(), grey, limit=3, attacks=["fgsm"], flow=0, pixel=0.1)
    (model,) = report.models
    assert model.clean_accuracy.correct == 0
    assert (model.minimal_pixel, model.flow_curve, model.map) == (None, None, None)
    assert model.sanity.verdict == "none"
    assert any("no better than chance" in warning for warning in model.warnings)
    assert [image.broken_by for image in model.images] == ["clean"] * 3
