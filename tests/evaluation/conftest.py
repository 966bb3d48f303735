"""The shipped classifier behind both backends, and a few of its images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import material
import numpy as np
import pytest

from jataug.evaluation.attacks.perturbation import Context
from jataug.evaluation.attacks.tries import Rows
from jataug.evaluation.models.model import Calls
from jataug.evaluation.models.onnx import OnnxModel
from jataug.evaluation.models.torch import TorchModel

FLOW, PIXEL = 0.3, 8 / 255


@pytest.fixture(scope="session")
def shipped(demo_classifier: material.Model) -> OnnxModel:
    return OnnxModel(demo_classifier.path, device="cpu", threads=1)


@pytest.fixture(scope="session")
def twin(demo_classifier: material.Model) -> TorchModel:
    return TorchModel(demo_classifier.module, (1, 28, 28))


@pytest.fixture(scope="session")
def batch(shipped: OnnxModel, demo_images: Any) -> tuple[Rows, np.ndarray]:
    """32 images that the shipped classifier has right, and its logits."""
    levels, labels = (array[:64] for array in demo_images)
    images = levels[:, None].astype(np.float32) / np.float32(255)
    logits = shipped.logits(images)
    right = np.flatnonzero(logits.argmax(1) == labels)[:32]
    rows = Rows.first_tries(images[right], labels[right], right, FLOW, PIXEL)
    return rows, logits[right]


@pytest.fixture
def calls(shipped: OnnxModel) -> Calls:
    return Calls(shipped, 32)


@pytest.fixture(scope="session")
def context() -> Context:
    return Context(seed=3)


@pytest.fixture(scope="session")
def broken() -> Callable[..., np.ndarray]:
    """broken(model, rows, image): which images the model gets wrong."""
    return lambda model, rows, image: model.logits(image).argmax(1) != rows.label


@pytest.fixture
def source(tmp_path: Path, demo_images: Any) -> Path:
    """The first 24 of the shipped images as a file of their own."""
    levels, labels = demo_images
    path = tmp_path / "images.npz"
    np.savez(path, images=levels[:24], labels=labels[:24])
    return path
