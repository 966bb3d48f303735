"""What an evaluation says of logits that are not finite."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jataug import evaluate

COUNT, SHAPE, CLASSES = 12, (1, 6, 6), 3


class Linear:
    """A linear classifier in numpy, not finite for the images that `spoils` picks."""

    kind, image_shape, classes, provider = "torch", SHAPE, CLASSES, "numpy"

    def __init__(self, spoils: Any, seed: int = 0) -> None:
        self._spoils = spoils
        self.weight = np.random.default_rng(seed).standard_normal((36, CLASSES)).astype(np.float32)

    def logits(self, images: Any) -> Any:
        found = images.reshape(len(images), -1) @ self.weight
        found[self._spoils(images)] = np.nan
        return found

    def gradient(self, images: Any, seed: Any) -> Any:
        found = self.logits(images)
        return found, (seed(found) @ self.weight.T).reshape(images.shape).astype(np.float32)


def nothing(images: Any) -> Any:
    return np.zeros(len(images), bool)


@pytest.fixture
def levels() -> Any:
    found = np.random.default_rng(1).integers(40, 216, (COUNT, 6, 6), np.uint8)
    found[[2, 5], 0, 0] = 0
    return found


def corner_is_black(images: Any) -> Any:
    return images[:, 0, 0, 0] < 0.1


def evaluated(model: Any, levels: Any, folder: Path, **options: Any) -> Any:
    clean = levels[:, None] / np.float32(255)
    labels = Linear(nothing).logits(clean).argmax(1)
    np.savez(folder / "images.npz", images=levels, labels=labels)
    given = {"attacks": ["clean", "pgd", "joint"], "curves": False, "sanity": False}
    return evaluate(model, folder / "images.npz", flow=0.3, pixel=0.5, **{**given, **options})


@pytest.mark.parametrize("measured", ["float", "uint8"])
def test_clean_images_are_counted_and_named(levels: Any, tmp_path: Path, measured: str) -> None:
    (found,) = evaluated(Linear(corner_is_black), levels, tmp_path, measured=measured).models
    assert found.clean_accuracy.correct == COUNT - 2
    assert [row.clean_prediction < 0 for row in found.images] == [k in (2, 5) for k in range(COUNT)]
    (warning,) = [w for w in found.warnings if "not finite" in w]
    names = [row.key for row in found.images]
    assert warning.startswith("the logits of 2 clean images are not finite")
    assert names[2] in warning
    assert names[5] in warning


def spoilt_as_stored(levels: Any) -> Any:
    """Not finite for the images at 8-bit levels that are not the clean ones: what an attack finds
    has logits until it is quantised.
    """
    clean = levels[:, None] / np.float32(255)
    known = {image.tobytes() for image in clean}

    def spoils(images: Any) -> Any:
        at_levels = np.abs(255 * images - np.rint(255 * images)).max((1, 2, 3)) < 1e-3
        return at_levels & np.array([image.tobytes() not in known for image in images], bool)

    return spoils


def test_an_attack_that_ends_in_them_has_no_success(levels: Any, tmp_path: Path) -> None:
    levels[[2, 5], 0, 0] = 100
    model = Linear(spoilt_as_stored(levels))
    (plain,) = evaluated(Linear(nothing), levels, tmp_path, measured="uint8").models
    (found,) = evaluated(model, levels, tmp_path, measured="uint8").models
    assert min(row.accuracy.correct for row in plain.attacks) < COUNT  # else this tests nothing
    for row in found.attacks:
        assert row.accuracy.correct == COUNT, row.name
    assert {worst.accuracy.correct for worst in found.worst} == {COUNT}
    assert not any(image.broken_by for image in found.images)
    for name in ("pgd", "joint"):
        (warning,) = [w for w in found.warnings if w.startswith(f"{name}: ")]
        assert f"{COUNT} attacked images are not finite" in warning
        assert warning.count(",") >= 3
        assert "..." in warning


def test_another_model_that_has_none_is_not_broken(levels: Any, tmp_path: Path) -> None:
    levels[[2, 5], 0, 0] = 100
    clean = levels[:, None] / np.float32(255)
    known = {image.tobytes() for image in clean}
    other = Linear(lambda images: np.array([i.tobytes() not in known for i in images], bool))
    (found,) = evaluated(Linear(nothing), levels, tmp_path, transfer=[other]).models
    transfers = [row for row in found.transfer if row.attack in ("pgd", "joint")]
    assert len(transfers) == 2
    for row in transfers:
        assert row.direct.correct < COUNT
        assert row.accuracy.correct == row.clean.correct == COUNT
