"""torch: workers, epochs, failures in workers, checkpoints, and the transform in its pipelines."""

import importlib.util
import itertools
import multiprocessing
import time
from functools import partial

import loading
import numpy as np
import pytest
from loading import Attacked, load

import jataug
from jataug.errors import DataError

torch = pytest.importorskip("torch", reason="torch, of jataug[torch], is not installed")
module = load("torch")
from families import declare_operators  # noqa: E402 - wants torch

DataLoader = torch.utils.data.DataLoader

RANDOM = jataug.AttackConfig(steps=0)
# Each spawned worker imports torch: seconds.
WORKERS = [
    (2, "fork"),
    (4, "fork"),
    (2, "spawn"),
    pytest.param(4, "spawn", marks=pytest.mark.heavy),
]

# A fork in a process with threads: what these tests are about.
# Four workers on fewer cores are slow, not wrong.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning",
    "ignore:This DataLoader will create",
    "ignore:'set_vital' is deprecated",  # torchdata's
)


def loader(data, workers, context, **options):
    options = {"timeout": 120 if workers else 0, **options}
    return DataLoader(
        data, batch_size=8, num_workers=workers, multiprocessing_context=context, **options
    )


def same(one, two):
    assert len(one) == len(two) > 0
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def mixture(world, form="npz", **options):
    return module.mixed(world / "source.npz", world / form, 0.5, 1, **options)


@pytest.fixture(scope="module")
def alone(world):
    """The batches of two epochs, without workers."""
    data, found = mixture(world), []
    for epoch in (4, 5):
        data.set_epoch(epoch)
        found += list(loader(data, 0, None))
    assert not torch.equal(found[0]["adversarial"], found[5]["adversarial"])
    return found


@pytest.mark.parametrize("persistent", [True, pytest.param(False, marks=pytest.mark.heavy)])
@pytest.mark.parametrize(("workers", "context"), WORKERS)
def test_workers_give_the_same_samples(world, alone, workers, context, persistent):
    data, found = mixture(world), []
    batches = loader(data, workers, context, persistent_workers=persistent)
    for epoch in (4, 5):
        data.set_epoch(epoch)
        found += list(batches)
    same(found, alone)


@pytest.mark.parametrize("form", loading.FORMATS)
def test_every_format_in_workers(world, form):
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow, of jataug[parquet], is not installed")
    data = module.dataset(world / form)
    data[0]  # what is open in the parent must not be shared
    order = list(reversed(range(len(data))))
    found = [list(loader(data, w, c, sampler=order)) for w, c in [(0, None), (2, "fork")]]
    same(*found)


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(("workers", "context"), WORKERS)
def test_attacks_in_workers(world, workers, context, steps):
    if steps:
        pytest.importorskip("onnxruntime", reason="onnxruntime, of jataug[cpu], is not installed")
    data = mixture(world)
    attacked = Attacked(module.augment(world / "attack.onnx", steps=steps, threads=1))
    # With a session open in the parent: a child that used it would wait for threads it lacks.
    alone = list(loader(data, 0, None, collate_fn=attacked))
    found = list(loader(data, workers, context, collate_fn=attacked, timeout=60))
    same(found, alone)
    assert not any(batch["cuda"] for batch in found)


def test_a_fork_while_another_thread_attacks(world):
    """The child must neither wait for the parent's lock nor use its session."""
    pytest.importorskip("onnxruntime", reason="onnxruntime, of jataug[cpu], is not installed")
    attacked = Attacked(module.augment(world / "attack.onnx", threads=1))
    data = module.dataset(world / "npz")
    alone = list(loader(data, 0, None, collate_fn=attacked))
    with attacked.augmenter._lock:
        found = list(loader(data, 2, "fork", collate_fn=attacked, timeout=60))
    same(found, alone)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.heavy)])
def test_stopping_early(world, context):
    data = mixture(world)
    begin, before = time.monotonic(), set(multiprocessing.active_children())
    for _ in range(3):
        batches = iter(loader(data, 2, context, prefetch_factor=4))
        next(batches)
        del batches
    assert set(multiprocessing.active_children()) <= before
    assert time.monotonic() - begin < 100


@pytest.mark.parametrize(
    ("workers", "context"),
    [(0, None), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.heavy)],
)
def test_an_error_in_a_worker_names_the_sample(copied, workers, context):
    root = copied("folder")
    data = module.dataset(root)
    victim = sorted((root / "images").rglob("*.png"))[9]
    victim.write_bytes(victim.read_bytes()[:-30])
    with pytest.raises(DataError, match=f"sample .*{victim.stem}.*damaged or truncated"):
        list(loader(data, workers, context))


def test_an_error_of_the_augmenter_in_a_worker_is_one_of_ours(world):
    data = module.dataset(world / "npz")
    attacked = Attacked(module.augment(world / "turned.onnx", steps=0))
    with pytest.raises(DataError, match=r"turned\.onnx was made for"):
        list(loader(data, 2, "fork", collate_fn=attacked))


def test_images_are_tensors_that_may_be_written(world, stored):
    for form in ("folder", "npz"):
        image = module.dataset(world / form)[3]["image"]
        assert image.shape == (3, 10, 12)
        assert image.is_contiguous()
        image += 1
        assert np.array_equal(image.numpy().transpose(1, 2, 0), stored[3].image + np.uint8(1))


def test_transform(world):
    data = module.dataset(world / "folder", transform=lambda image: image.float().mean())
    plain = module.dataset(world / "folder")
    assert data[7]["image"] == plain[7]["image"].float().mean()


def test_positions(world):
    data = module.dataset(world / "folder")
    assert data[-1]["index"] == data[len(data) - 1]["index"] == loading.COUNT - 1
    for position in (len(data), -len(data) - 1):
        with pytest.raises(IndexError, match="expected a position"):
            data[position]
    with pytest.raises(DataError, match="epoch: expected an integer >= 0"):
        data.set_epoch(-1)


def test_distributed_sampler_divides_it(world):
    data = module.dataset(world / "folder")
    sampler = torch.utils.data.distributed.DistributedSampler
    parts = [list(sampler(data, 4, rank, shuffle=True, seed=1)) for rank in range(4)]
    found = [data[k]["index"] for k in itertools.chain(*parts)]
    assert sorted(found) == list(range(loading.COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_data_loader_goes_on(world, workers):
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata")
    data = mixture(world)

    def fresh():
        torch.manual_seed(3)
        return stateful.StatefulDataLoader(data, 4, shuffle=True, num_workers=workers)

    first = fresh()
    begun = iter(first)
    for _ in range(4):
        next(begun)
    state = first.state_dict()
    wanted = list(begun)
    second = fresh()
    second.load_state_dict(state)
    same(list(second), wanted)


def test_cpu_tensors_are_read_where_they_lie(monkeypatch):
    images, seen = torch.rand(2, 3, 10, 12), []
    augmenter = module.augment(RANDOM)
    run = augmenter.run

    def watched(array, *rest):
        result = run(array, *rest)
        seen.extend([array, result])
        return result

    monkeypatch.setattr(augmenter, "run", watched)
    found = augmenter(images)
    assert np.shares_memory(seen[0], images.numpy())
    assert np.shares_memory(seen[1], found.numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats(dtype):
    images = torch.rand(2, 3, 10, 12).to(getattr(torch, dtype))
    found = module.augment(RANDOM)(images)
    assert found.dtype == images.dtype
    wanted = module.augment(RANDOM)(images.float())
    assert torch.equal(found, wanted.to(images.dtype))


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("composition", ["spatial-pixel", "pixel-spatial"])
@pytest.mark.parametrize("eight_bit", [True, False])
def test_the_device_s_augmentation_is_the_host_s(norm, composition, eight_bit):
    """tensors.streamed is what runs on CUDA; here it runs on the CPU."""
    from jataug.loaders import tensors

    config = jataug.AttackConfig(
        flow=jataug.FlowBudget(0.7, norm),
        pixel=jataug.PixelBudget(0.05 if norm == "linf" else 0.6, norm),
        composition=composition,
        steps=0,
    )
    images = torch.rand(3, 3, 10, 12)
    images = (images * 255).byte() if eight_bit else images
    indices = [0, 2**40, 5]
    wanted = module.augment(config, seed=9)(images, None, np.array(indices), epoch=4)
    found = tensors.streamed(images, indices, config, 9, 4)
    assert found.dtype == images.dtype
    # cos and log may differ in the last bit between numpy and torch.
    if eight_bit:
        difference = (found.int() - wanted.int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 0.01
    else:
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_other_layout_is_refused_unless_it_is_asked_for(dtype):
    last = torch.zeros(2, 10, 12, 3, dtype=dtype)
    with pytest.raises(DataError, match=r"\(10, 12, 3\).* layout='nhwc'"):
        module.augment(RANDOM)(last)
    module.augment(RANDOM, layout="nhwc")(last)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_the_way_of_cuda_tensors(layout):
    """What a batch on CUDA goes through; nothing in it asks for CUDA."""
    images, indices, epochs = torch.rand(5, 3, 10, 12), np.array([5, 1, 9, 2, 4]), [0, 1, 0, 2, 1]
    images = images if layout == "nchw" else images.permute(0, 2, 3, 1).contiguous()
    augmenter = module.augment(RANDOM, seed=4, layout=layout)
    found = augmenter._on_device(images, indices, np.array(epochs))
    assert found.is_contiguous()
    wanted = augmenter(images, None, indices, epoch=np.array(epochs))
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)
    with pytest.raises(DataError, match="finite values"):
        augmenter._on_device(images + 1, None, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_tensors():
    images = torch.rand(5, 3, 10, 12)
    found = module.augment(RANDOM, seed=4)(images.cuda(), None, torch.arange(5).cuda())
    assert found.is_cuda
    wanted = module.augment(RANDOM, seed=4)(images)
    torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=2e-6)
    moved = module.RandomJoint(RANDOM)(images.cuda())
    assert moved.is_cuda
    assert not torch.equal(moved.cpu(), images)


def test_words_on_the_device_are_those_of_the_specification():
    from jataug import streams
    from jataug.attack import noise

    seed, indices = 2**64 - 1, [123456789, 0, 2**63 + 5]
    found = noise.words(seed, indices, 2, 11, epoch=5, device=torch.device("cpu"))
    for row, index in zip(found.numpy().view(np.uint64), indices, strict=True):
        assert np.array_equal(row, streams.words(seed, index, 2, 11, epoch=5))


def torchvision():
    """torchvision.transforms.v2 and tv_tensors."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    declare_operators()
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    return v2, tv_tensors


def test_in_a_pipeline_of_torchvision():
    v2, tv_tensors = torchvision()
    transform = module.RandomJoint(RANDOM)
    array = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    pipe = v2.Compose([v2.ToImage(), transform, v2.ToDtype(torch.float32, scale=True)])
    moved = pipe(array)
    assert isinstance(moved, tv_tensors.Image)
    assert (moved * 255 - torch.from_numpy(array).permute(2, 0, 1)).abs().max() > 0
    sample = {
        "other": torch.zeros(3, 10, 12),
        "image": tv_tensors.Image(torch.from_numpy(array).permute(2, 0, 1)),
        "mask": tv_tensors.Mask(torch.zeros(1, 10, 12)),
        "label": 4,
    }
    found = pipe(sample)
    assert found["label"] == 4
    assert not found["other"].any()
    assert not found["mask"].any()
    assert isinstance(found["mask"], tv_tensors.Mask)
    assert not torch.equal(found["image"] * 255, sample["image"].float())


def test_in_a_pipeline_of_kornia():
    kornia = pytest.importorskip("kornia.augmentation", reason="kornia is not installed")
    images, masks = torch.rand(4, 3, 10, 12), torch.zeros(4, 1, 10, 12)
    pipe = kornia.AugmentationSequential(
        kornia.RandomHorizontalFlip(p=0.0), module.RandomJoint(RANDOM), data_keys=["input", "mask"]
    )
    moved, kept = pipe(images, masks)
    assert moved.shape == images.shape
    assert (moved != images).float().mean() > 0.9
    assert not kept.any()


def test_the_transform_follows_torch_s_random_source():
    transform = module.RandomJoint(RANDOM)
    image = torch.rand(3, 10, 12)
    moved = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        moved.append(transform(image))
    assert torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[0], moved[2])
    own = partial(torch.Generator().manual_seed, 5)
    two = [module.RandomJoint(RANDOM, own())(image) for _ in range(2)]
    assert torch.equal(*two)


def test_every_image_of_a_batch_has_its_own_draws():
    image = torch.rand(3, 10, 12)
    one, two = module.RandomJoint(RANDOM)(torch.stack([image, image]))
    assert not torch.equal(one, two)


def test_the_transform_takes_the_first_image_of_a_structure():
    image, label = torch.rand(3, 10, 12), torch.tensor([1])
    changed, kept = module.RandomJoint(RANDOM)(image, label)
    assert kept is label
    assert not torch.equal(changed, image)
    (changed, other), text = module.RandomJoint(RANDOM)(([image, image.clone()], "text"))
    assert text == "text"
    assert torch.equal(other, image)
    assert not torch.equal(changed, image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 4, 4, dtype=torch.int32), "expected uint8 or floating"),
        (torch.zeros(4, 4), "expected a tensor, got none"),
        (torch.full((3, 4, 4), 1.5), r"finite values in \[0, 1\]"),
        (torch.full((3, 4, 4), float("nan")), r"finite values in \[0, 1\]"),
        ("image", "expected a tensor, got none"),
        (torch.zeros(8, 9, 3, dtype=torch.uint8), r"got \(8, 9, 3\).*ToImage"),
    ],
)
def test_the_transform_refuses(image, message):
    with pytest.raises(DataError, match=message):
        module.RandomJoint(RANDOM)(image)
