"""grain: workers, epochs, hosts, checkpoints, failures in workers, and jax arrays."""

import multiprocessing
import sys

import loading
import numpy as np
import pytest
from loading import load

import jataug
from jataug.errors import DataError

module = load("grain")
grain = pytest.importorskip("grain", reason="grain, of jataug[grain], is not installed")

RANDOM = jataug.AttackConfig(steps=0)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True, scope="module")
def flags():
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain's workers read absl's flags


def prefetched(data, workers):
    data = data.to_iter_dataset()
    return data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers)) if workers else data


def same(one, two):
    one, two = list(one), list(two)
    assert len(one) == len(two) > 0
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("steps", [0, 2])
def test_workers_give_the_same_samples(world, workers, steps):
    if steps:
        pytest.importorskip("onnxruntime", reason="onnxruntime, of jataug[cpu], is not installed")
    data = module.mixed(world / "source.npz", world / "npz", 0.5, 1)
    augmenter = module.augment(world / "attack.onnx", steps=steps, threads=1)
    pipe = data.seed(3).shuffle().repeat(2).batch(8).map(augmenter)
    same(prefetched(pipe, 0), prefetched(pipe, workers))


@pytest.mark.parametrize("form", loading.FORMATS)
def test_every_format_in_workers(world, form):
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow, of jataug[parquet], is not installed")
    data = module.dataset(world / form)
    same(data, prefetched(data, 2))


def test_epochs_and_hosts(world):
    data = module.dataset(world / "npz").seed(1).shuffle()
    parts = [list(data[k::3].repeat(2)) for k in range(3)]
    for epoch in (0, 1):
        found = [int(s["index"]) for part in parts for s in part if s["epoch"] == epoch]
        assert sorted(found) == list(range(loading.COUNT))
    orders = [[int(s["index"]) for s in part if s["epoch"] == 0] for part in parts]
    again = [[int(s["index"]) for s in part if s["epoch"] == 1] for part in parts]
    assert orders != again


@pytest.mark.parametrize("workers", [0, 2])
def test_a_checkpoint_goes_on(world, workers):
    data = module.mixed(world / "source.npz", world / "folder", 0.5, 1)
    pipe = prefetched(data.seed(3).shuffle().repeat(2).batch(4), workers)
    first = iter(pipe)
    for _ in range(5):
        next(first)
    state = first.get_state()
    wanted = list(first)
    second = iter(pipe)
    second.set_state(state)
    same(second, wanted)


def test_an_error_in_a_worker_names_the_sample(copied):
    root = copied("folder")
    data = module.dataset(root)
    victim = sorted((root / "images").rglob("*.png"))[9]
    victim.write_bytes(victim.read_bytes()[:-30])
    for workers in (0, 2):
        with pytest.raises(Exception, match=f"sample .*{victim.stem}.*damaged or truncated"):
            list(prefetched(data, workers))


def test_stopping_early(world):
    data = module.dataset(world / "npz").repeat().batch(4)
    before = set(multiprocessing.active_children())
    for _ in range(2):
        found = iter(prefetched(data, 2))
        next(found)
        del found
    for child in set(multiprocessing.active_children()) - before:
        child.join(60)
    assert set(multiprocessing.active_children()) <= before


def test_the_transform_follows_grain_s_seed(world):
    data = module.dataset(world / "npz")
    moved = [list(data.seed(s).random_map(module.RandomJoint(RANDOM))) for s in (1, 1, 2)]
    same(moved[0], moved[1])
    images = [np.stack([sample["image"] for sample in part]) for part in moved]
    assert not np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0], np.stack([sample["image"] for sample in data]))


def test_the_transform_of_an_image():
    image = np.random.default_rng(0).random(loading.SHAPE, np.float32)
    moved = module.RandomJoint(RANDOM).random_map(image, np.random.default_rng(1))
    assert moved.shape == image.shape
    assert not np.array_equal(moved, image)


def test_jax_arrays_come_back_on_their_device():
    jnp = pytest.importorskip("jax.numpy", reason="jax, of jataug[grain], is not installed")
    images = jnp.linspace(0, 1, 2 * 10 * 12 * 3).reshape(2, *loading.SHAPE)
    found = module.augment(RANDOM)(images)
    assert found.sharding == images.sharding
    wanted = module.augment(RANDOM)(np.asarray(images))
    assert isinstance(wanted, np.ndarray)
    assert np.array_equal(np.asarray(found), wanted)


def test_jax_arrays_are_read_where_they_lie(monkeypatch):
    jnp = pytest.importorskip("jax.numpy", reason="jax, of jataug[grain], is not installed")
    images, seen = jnp.full((2, *loading.SHAPE), 0.5), []
    augmenter = module.augment(RANDOM)
    run = augmenter.run
    monkeypatch.setattr(augmenter, "run", lambda a, *rest: seen.append(a) or run(a, *rest))
    augmenter(images)
    assert np.shares_memory(seen[0], np.from_dlpack(images))


def test_no_jax_backend_starts(world):
    import subprocess

    code = (
        "from jataug.loaders import grain\n"
        f"data = grain.dataset({str(world / 'npz')!r}); data[0]\n"
        "from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_refusals(world):
    with pytest.raises(DataError, match="finite values"):
        module.RandomJoint(RANDOM).random_map(np.full((4, 4), 2.0), np.random.default_rng(0))
