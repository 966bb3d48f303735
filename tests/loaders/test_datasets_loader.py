"""Hugging Face datasets: map, shuffle, shard, workers, the transform; nothing in a cache."""

import loading
import numpy as np
import pytest
from loading import load

import jataug
from jataug.errors import DataError

module = load("datasets")
datasets = pytest.importorskip("datasets", reason="datasets, of jataug[hf], is not installed")

RANDOM = jataug.AttackConfig(steps=0)


def test_rows(world, stored):
    data = module.dataset(world / "npz")
    assert isinstance(data, datasets.Dataset)
    assert data[3:5]["index"] == [3, 4]
    assert np.array_equal(data[3:5]["image"][1], stored[4].image)
    assert [s["index"] for s in data.shuffle(seed=1).shard(4, 0)] != list(range(10))
    parts = [s["index"] for k in range(4) for s in data.shuffle(seed=1).shard(4, k)]
    assert sorted(parts) == list(range(loading.COUNT))
    assert not data.cache_files


def test_a_transform_follows_reading(world):
    augmenter = module.augment(RANDOM, seed=2)
    data = module.mixed(world / "source.npz", world / "npz", 0.5, transform=augmenter)
    plain = module.mixed(world / "source.npz", world / "npz", 0.5)
    for a, b in zip(data, plain, strict=True):
        wanted = augmenter(b["image"][None], None, [b["index"]])[0]
        assert np.array_equal(a["image"], wanted)
        assert a["adversarial"] == b["adversarial"]


def test_epochs_follow_each_other(world):
    data = module.mixed(world / "source.npz", world / "npz", 0.5, epoch=2, epochs=2)
    assert [s["epoch"] for s in data] == [2] * loading.COUNT + [3] * loading.COUNT
    first = [s["adversarial"] for s in data.select(range(loading.COUNT))]
    assert first != [s["adversarial"] for s in data.select(range(loading.COUNT, 80))]
    with pytest.raises(DataError, match="expected >= 0 and >= 1"):
        module.dataset(world / "npz", epochs=0)


def test_map(world, stored):
    data = module.dataset(world / "folder").map(lambda row: {"mean": float(np.mean(row["image"]))})
    means = data.with_format(None)["mean"]
    np.testing.assert_allclose(list(means), [one.image.mean() for one in stored])


@pytest.mark.heavy
def test_map_in_processes(world, stored):
    data = module.dataset(world / "folder")
    found = data.map(lambda row: {"mean": float(np.mean(row["image"]))}, num_proc=2)
    means = found.with_format(None)["mean"]
    np.testing.assert_allclose(list(means), [one.image.mean() for one in stored])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # few cores
@pytest.mark.parametrize("workers", [2, 4])
def test_in_a_torch_data_loader(world, workers):
    torch = pytest.importorskip("torch", reason="torch, of jataug[torch], is not installed")
    data = module.mixed(world / "source.npz", world / "npz", 0.5, transform=module.augment(RANDOM))
    loaders = [torch.utils.data.DataLoader(data, 8, num_workers=k) for k in (0, workers)]
    for a, b in zip(*loaders, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_an_error_names_the_sample(copied):
    root = copied("folder")
    data = module.dataset(root)
    victim = sorted((root / "images").rglob("*.png"))[9]
    victim.write_bytes(victim.read_bytes()[:-30])
    with pytest.raises(DataError, match=f"sample .*{victim.stem}.*damaged or truncated"):
        list(data)


def pictures(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, size, np.uint8) for size in [(8, 9, 3), (6, 6, 3), (5, 7, 3)]]


def own():
    """A data set of someone's, with images of several sizes."""
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    return datasets.Dataset.from_dict({"image": pictures(), "label": [0, 1, 2]}, features=features)


def test_the_transform_in_set_transform():
    data = own()
    data.set_transform(module.RandomJoint(RANDOM, seed=1))
    found, clean = data[:], pictures()
    assert found["label"] == [0, 1, 2]
    assert [image.shape for image in found["image"]] == [image.shape for image in clean]
    assert not any(np.array_equal(a, b) for a, b in zip(found["image"], clean, strict=True))
    again = own()
    again.set_transform(module.RandomJoint(RANDOM, seed=1))
    assert all(np.array_equal(a, b) for a, b in zip(again[:]["image"], found["image"], strict=True))
    # One generator goes on: the second time is another draw.
    assert not np.array_equal(again[:]["image"][0], found["image"][0])


def test_images_of_several_sizes_are_no_batch():
    with pytest.raises(DataError, match="images: expected one size, got"):
        module.augment(RANDOM)({"image": pictures()})


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_workers_draw_differently():
    torch = pytest.importorskip("torch", reason="torch, of jataug[torch], is not installed")
    features = datasets.Features(image=datasets.Image())
    data = datasets.Dataset.from_dict({"image": [pictures()[0]] * 2}, features=features)
    data.set_transform(module.RandomJoint(RANDOM, seed=1))
    one, two = torch.utils.data.DataLoader(data, 1, num_workers=2)
    assert not torch.equal(one["image"], two["image"])
