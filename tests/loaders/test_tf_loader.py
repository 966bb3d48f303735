"""TensorFlow: order, hosts, checkpoints, failures in a pipeline, the transform, and memory."""

import loading
import numpy as np
import pytest
from loading import load

import jataug
from jataug.errors import DataError

module = load("tf")
tf = pytest.importorskip("tensorflow", reason="tensorflow, of jataug[tf], is not installed")

RANDOM = jataug.AttackConfig(steps=0)
pytestmark = pytest.mark.filterwarnings("ignore:::tensorflow", "ignore:::keras")


def indices(data):
    return [int(sample["index"]) for sample in data]


@pytest.mark.parametrize("form", ["folder", "npz"])
def test_parallel_maps_give_the_same_samples(world, form):
    data = module.mixed(world / "source.npz", world / form, 0.5, 1, shuffle=2, epochs=2)
    augmenter = module.augment(RANDOM)
    found = [
        list(data.batch(8).map(augmenter, num_parallel_calls=calls, deterministic=True))
        for calls in (None, 2, 4)
    ]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert all(np.array_equal(a[k], b[k]) for k in a)
    assert found[0][0]["image"].shape == (8, *loading.SHAPE)


def test_attacks_in_a_parallel_map(world):
    pytest.importorskip("onnxruntime", reason="onnxruntime, of jataug[cpu], is not installed")
    data = module.dataset(world / "npz").batch(8)
    augmenter = module.augment(world / "attack.onnx", threads=1)
    found = [list(data.map(augmenter, num_parallel_calls=calls)) for calls in (None, 4)]
    for a, b in zip(*found, strict=True):
        assert np.array_equal(a["image"], b["image"])


def test_order(world):
    def order(**options):
        return indices(module.dataset(world / "folder", **options))

    plain = list(range(loading.COUNT))
    assert order() == plain
    one, two = order(shuffle=1), order(shuffle=1, epochs=2)
    assert two[: loading.COUNT] == one == order(shuffle=1)
    assert sorted(two[loading.COUNT :]) == sorted(one) == plain
    assert two[loading.COUNT :] == order(shuffle=1, epoch=1) != one != order(shuffle=2)
    parts = [order(shuffle=1, shard=(k, 3)) for k in range(3)]
    assert sorted(sum(parts, [])) == plain  # noqa: RUF017 - three lists


def test_cardinality(world):
    assert len(module.dataset(world / "npz", epochs=3, shard=(1, 3))) == 3 * 13
    endless = module.dataset(world / "folder", epochs=None)
    assert endless.cardinality() == tf.data.INFINITE_CARDINALITY
    assert indices(endless.take(45))[40:] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": (3, 3)}, "shard: expected"),
        ({"epochs": 0}, "expected >= 0 and >= 1"),
        ({"epoch": -1}, "expected >= 0 and >= 1"),
    ],
)
def test_wrong_options(world, options, message):
    with pytest.raises(DataError, match=message):
        module.dataset(world / "folder", **options)


@pytest.mark.parametrize("form", ["folder", "npz"])
def test_a_checkpoint_goes_on(world, tmp_path, form):
    def fresh():
        return iter(module.dataset(world / form, shuffle=1, epochs=None).batch(4))

    first, second = fresh(), fresh()
    for _ in range(7):
        next(first)
    path = tf.train.Checkpoint(iterator=first).save(str(tmp_path / "checkpoint"))
    wanted = [next(first)["index"].numpy().tolist() for _ in range(9)]
    tf.train.Checkpoint(iterator=second).restore(path)
    assert [next(second)["index"].numpy().tolist() for _ in range(9)] == wanted


@pytest.mark.parametrize("verify", ["quick", "read"])
def test_an_error_in_the_pipeline_names_the_sample(copied, verify):
    root = copied("folder")
    data = module.dataset(root, verify=verify).batch(8)
    victim = sorted((root / "images").rglob("*.png"))[9]
    content = bytearray(victim.read_bytes())
    content[content.index(b"IDAT") + 40] ^= 255  # its check sum fails
    victim.write_bytes(bytes(content))
    with pytest.raises(tf.errors.OpError, match=f"sample .*{victim.stem}"):
        list(data)


def test_images_of_another_size_are_refused(copied):
    from PIL import Image

    root = copied("folder")
    data = module.dataset(root)
    victim = sorted((root / "images").rglob("*.png"))[2]
    Image.new("RGB", (4, 4)).save(victim)
    with pytest.raises(tf.errors.OpError, match=f"sample .*{victim.stem}.*expected the shape"):
        list(data)


def test_stopping_early(world):
    for _ in range(3):
        found = iter(module.mixed(world / "source.npz", world / "npz", epochs=None).prefetch(4))
        next(found)
        del found


def test_eager_tensors_are_read_and_made_where_they_lie(monkeypatch):
    images, seen = tf.random.uniform((2, *loading.SHAPE)), []
    augmenter = module.augment(RANDOM)
    run = augmenter.run

    def watched(array, *rest):
        result = run(array, *rest)
        seen.extend([array, result])
        return result

    monkeypatch.setattr(augmenter, "run", watched)
    found = augmenter(images)
    assert np.shares_memory(seen[0], np.asarray(memoryview(images)))
    assert np.shares_memory(seen[1], np.asarray(memoryview(found)))


def test_the_transform_follows_tensorflow_s_random_source():
    image = tf.random.uniform(loading.SHAPE)
    moved = []
    for seed in (1, 1, 2):
        tf.random.set_seed(seed)
        moved.append(module.RandomJoint(RANDOM)(image).numpy())
    assert np.array_equal(moved[0], moved[1])
    assert not np.array_equal(moved[0], moved[2])


def test_the_transform_in_a_map(world):
    data = module.dataset(world / "folder")
    moved = data.map(module.RandomJoint(RANDOM), num_parallel_calls=2)
    assert moved.element_spec == data.element_spec
    for a, b in zip(data, moved, strict=True):
        assert a["index"] == b["index"]
        assert not np.array_equal(a["image"], b["image"])


def test_floats_outside_in_a_pipeline(world):
    data = tf.data.Dataset.from_tensors(tf.fill((2, *loading.SHAPE), 1.5))
    with pytest.raises(tf.errors.OpError, match="DataError: images: expected finite values"):
        list(data.map(module.augment(RANDOM)))
