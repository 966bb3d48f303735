"""The transform in a pipeline of albumentations."""

import json

import numpy as np
import pytest
from loading import load

import jataug
from jataug.errors import DataError

albumentations = pytest.importorskip("albumentations", reason="albumentations is not installed")
module = load("albumentations")

RANDOM = jataug.AttackConfig(steps=0)
IMAGE = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)


def pipe(seed, p=1.0):
    return albumentations.Compose(
        [albumentations.HorizontalFlip(p=0.5), module.RandomJoint(RANDOM, p=p)], seed=seed
    )


def test_the_pipeline_s_seed_decides():
    one, again, other = (pipe(seed)(image=IMAGE)["image"] for seed in (1, 1, 2))
    assert one.dtype == np.uint8
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    twice = pipe(1)
    assert not np.array_equal(twice(image=IMAGE)["image"], twice(image=IMAGE)["image"])


@pytest.mark.parametrize("shape", [(10, 12), (10, 12, 1), (10, 12, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images(shape, dtype):
    image = np.random.default_rng(0).random(shape)
    image = (image * 255).astype(np.uint8) if dtype == np.uint8 else image.astype(dtype)
    moved = module.RandomJoint(RANDOM, p=1.0)(image=image)["image"]
    assert (moved.shape, moved.dtype) == (shape, dtype)
    assert not np.array_equal(moved, image)


def test_masks_stay():
    mask = np.arange(120, dtype=np.uint8).reshape(10, 12)
    found = module.RandomJoint(RANDOM, p=1.0)(image=IMAGE, mask=mask)
    assert np.array_equal(found["mask"], mask)


def test_p():
    assert np.array_equal(pipe(1, p=0.0)(image=IMAGE[:, ::-1][:, ::-1])["image"].sum(), IMAGE.sum())


def test_a_pipeline_is_saved_and_read_back():
    saved = json.loads(json.dumps(albumentations.to_dict(module.RandomJoint(RANDOM, p=0.3))))
    again = albumentations.from_dict(saved)
    assert isinstance(again, module.RandomJoint)
    assert (again.p, again.config) == (0.3, RANDOM.to_dict())


def test_refusals():
    with pytest.raises(DataError, match="finite values"):
        module.RandomJoint(RANDOM, p=1.0)(image=np.full((4, 4, 3), 2, np.float32))
