"""What lies under every loader: verified sets, mixtures, labels, random augmentation in numpy."""

import ast
import hashlib
import inspect
import itertools
import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import loading
import numpy as np
import pytest
from loading import FORMATS

import jataug
from jataug import FlowBudget, PixelBudget
from jataug.errors import BudgetError, CheckError, DataError
from jataug.finalize import from_levels
from jataug.loaders import numpy as module
from jataug.loaders.augmenter import Augmenter
from jataug.loaders.joint import _flow as drawn_flow
from jataug.loaders.joint import drawn, streamed
from jataug.loaders.labels import Smoothing
from jataug.loaders.samples import is_adversarial
from jataug.loaders.stored import StoredSet
from jataug.warp import warp_range

RANDOM = jataug.AttackConfig(steps=0)
CONFIGS = {
    "default": RANDOM,
    "l2": jataug.AttackConfig(flow=FlowBudget(1.2), pixel=PixelBudget(0.5, "l2"), steps=0),
    "linf": jataug.AttackConfig(flow=FlowBudget(1.2, "linf"), pixel=PixelBudget(0.1), steps=0),
    "other-order": jataug.AttackConfig.preset("claim-8", flow=FlowBudget(0.8), steps=0),
    "pixels": jataug.AttackConfig(flow=FlowBudget(0), steps=0),
    "flow": jataug.AttackConfig(pixel=PixelBudget(0), steps=0),
}


def images(count=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *loading.SHAPE), np.uint8)


# Verification.


def damage(root, form):
    """Change one byte of an image where it is stored."""
    held = sorted(path for path in (root / "images").rglob("*") if path.is_file())[0]
    data = bytearray(held.read_bytes())
    place = data.index(b"IDAT") + 60 if form != "npz" else 400
    data[place] ^= 1
    held.write_bytes(bytes(data))


@pytest.mark.parametrize("form", FORMATS)
def test_a_changed_image_is_refused_when_it_is_read(copied, form):
    root = copied(form)
    damage(root, form)
    stored = StoredSet(root, verify="read")
    with pytest.raises(DataError, match=r"sample 0 \(00000\): .*changed"):
        stored.image(0)


@pytest.mark.parametrize("form", FORMATS)
def test_a_changed_image_is_refused_at_once(copied, form):
    root = copied(form)
    damage(root, form)
    with pytest.raises(CheckError, match="expected a data set that verifies"):
        StoredSet(root, verify="full")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("verify", ["quick", "read", "full"])
def test_a_whole_set_passes(world, form, verify):
    stored = StoredSet(world / form, verify)
    assert len([stored.image(k) for k in range(len(stored))]) == loading.COUNT


@pytest.mark.parametrize("form", FORMATS)
def test_a_missing_file_is_refused(copied, form):
    root = copied(form)
    held = sorted(path for path in (root / "images").rglob("*") if path.is_file())[-1]
    held.unlink()
    with pytest.raises(CheckError, match=held.name):
        StoredSet(root)


@pytest.mark.parametrize("form", ["npz", "tar", "parquet"])
def test_a_truncated_shard_is_refused(copied, form):
    root = copied(form)
    held = sorted((root / "images").iterdir())[1]
    held.write_bytes(held.read_bytes()[: held.stat().st_size // 2])
    with pytest.raises(CheckError, match=held.name):
        StoredSet(root)


def test_changed_records_are_refused(copied):
    root = copied("folder")
    path = root / "records" / "shard-00001.jsonl"
    path.write_text(path.read_text().replace('"label":1', '"label":2', 1))
    with pytest.raises(CheckError, match=r"shard-00001 records/.*got a changed file"):
        StoredSet(root)


def test_a_changed_plan_is_refused(copied):
    root = copied("folder")
    index = json.loads((root / "index.json").read_text())
    index["plan"]["seed"] += 1
    (root / "index.json").write_text(json.dumps(index))
    with pytest.raises(CheckError, match="expected the plan that its hash names"):
        StoredSet(root)


def test_no_file_outside_the_set_is_read(copied, tmp_path):
    root = copied("folder")
    path = root / "records" / "shard-00000.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[0])
    shutil.copy(root / record["file"], tmp_path / "outside.png")
    lines[0] = json.dumps({**record, "file": "../outside.png"})
    path.write_text("\n".join(lines) + "\n")
    index = json.loads((root / "index.json").read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    index["shards"][0]["files"]["records/shard-00000.jsonl"] = digest
    (root / "index.json").write_text(json.dumps(index))
    with pytest.raises(CheckError, match="expected a file inside the data set"):
        StoredSet(root)


def test_an_unknown_verification(world):
    with pytest.raises(DataError, match="verify: expected one of quick, read, full, got 'none'"):
        StoredSet(world / "npz", "none")


@pytest.mark.parametrize("form", FORMATS)
def test_a_stored_set_pickles(world, form):
    stored = StoredSet(world / form)
    stored.image(0)
    again = pickle.loads(pickle.dumps(stored))
    assert all(np.array_equal(again.image(k), stored.image(k)) for k in (39, 0, 17))


# Mixtures.


def test_the_draws_of_a_mixture_have_vectors():
    """They are part of the specification, docs/streams.md."""
    found = [is_adversarial(7, 2, index, 0.5) for index in range(16)]
    assert found == [bool(int(bit)) for bit in "1010010000011011"]


def test_the_share_of_a_mixture():
    for ratio in (0.1, 0.5, 0.8):
        share = np.mean([is_adversarial(1, 0, index, ratio) for index in range(4000)])
        assert abs(share - ratio) < 4 * np.sqrt(ratio * (1 - ratio) / 4000)


def test_a_larger_ratio_only_adds():
    small, large = ([is_adversarial(1, 0, k, ratio) for k in range(500)] for ratio in (0.2, 0.6))
    assert all(b for a, b in zip(small, large, strict=True) if a)
    assert sum(small) < sum(large)


@pytest.mark.parametrize("label", [-1, None])
def test_clean_images_need_no_labels(world, source, label):
    clean = [(image, label) for image in source["image"]]
    sample = module.mixed(clean, world / "npz", 0)[0]
    assert (sample["label"], sample["adversarial"]) == (source["label"][0], False)


def test_another_source_is_refused(world, source):
    turned = list(zip(source["image"], (source["label"] + 1) % 3, strict=True))
    data = module.mixed(turned, world / "npz", 0)
    with pytest.raises(DataError, match=r"clean image of .*sample 0 .*expected the label 0"):
        data[0]
    with pytest.raises(DataError, match=r"expected the 40 samples .* got 39"):
        module.mixed(turned[1:], world / "npz", 0)
    with pytest.raises(DataError, match="got generator"):
        module.mixed((x for x in turned), world / "npz", 0)


@pytest.mark.parametrize("wrong", [np.zeros(loading.SHAPE), np.zeros((4, 4, 3), np.uint8)])
def test_clean_images_are_those_that_were_attacked(world, wrong):
    data = module.mixed([wrong] * loading.COUNT, world / "npz", 0)
    with pytest.raises(DataError, match=r"sample 3 .*expected an image uint8 \(10, 12, 3\)"):
        data[3]


def test_clean_images_may_be_channels_first_or_pil(world, source):
    from PIL import Image

    first = list(source["image"].transpose(0, 3, 1, 2))
    pil = [{"image": Image.fromarray(image), "label": None} for image in source["image"]]
    for clean in (first, pil):
        data = module.mixed(clean, world / "npz", 0)
        assert np.array_equal(data[5]["image"], source["image"][5])


# Batches of numpy.


def test_batches(world):
    data = module.dataset(world / "npz")
    whole = list(data.batches(16))
    assert [len(batch["image"]) for batch in whole] == [16, 16, 8]
    assert np.concatenate([batch["index"] for batch in whole]).tolist() == list(range(40))
    assert [len(b["image"]) for b in data.batches(16, drop_last=True)] == [16, 16]
    orders = [
        [int(i) for batch in data.batches(7, shuffle=seed, epoch=epoch) for i in batch["index"]]
        for seed, epoch in [(1, 0), (1, 0), (1, 1), (2, 0)]
    ]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == list(range(40)) for order in orders)
    parts = [
        [int(i) for b in data.batches(7, shuffle=1, shard=(k, 3)) for i in b["index"]]
        for k in range(3)
    ]
    assert sorted(itertools.chain(*parts)) == list(range(40))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 0}, "size: expected"), ({"size": 2, "shard": (2, 2)}, "shard: expected")],
)
def test_wrong_batches(world, options, message):
    with pytest.raises(DataError, match=message):
        module.dataset(world / "npz").batches(**options)


# Labels.


@pytest.mark.parametrize("convention", ["authors", "torch"])
@pytest.mark.parametrize("amount", [0.0, 0.5, 1.0])
def test_smoothed_labels_are_distributions(convention, amount):
    found = Smoothing(amount, convention).of(2, 10)
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-6)
    assert len(set(found[[0, 1, 3]])) == 1


def test_the_conventions_meet():
    """Torch's with s K / (K - 1) is the authors' with s."""
    one, two = Smoothing(0.5), Smoothing(0.5 * 10 / 9, "torch")
    np.testing.assert_allclose(one.of(3, 10), two.of(3, 10), rtol=1e-6)


@pytest.mark.parametrize(
    ("amount", "convention", "message"),
    [(1.1, "authors", r"in \[0, 1\]"), (True, "authors", r"in \[0, 1\]"), (0.1, "x", "torch")],
)
def test_wrong_smoothing(amount, convention, message):
    with pytest.raises(DataError, match=message):
        Smoothing(amount, convention)


def test_the_old_name_of_torchs_convention_is_deprecated(world):
    with pytest.deprecated_call(match='convention="torch"'):
        old = module.dataset(world / "npz", smoothing=0.3, convention="common")
    new = module.dataset(world / "npz", smoothing=0.3, convention="torch")
    np.testing.assert_array_equal(old[0]["label"], new[0]["label"])


# Augmentation.


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("form", ["streamed", "drawn"])
def test_budgets(config, form):
    """Within reach of a flow of the radius, and a perturbation of the radius on top."""
    clean = images()
    if form == "streamed":
        found = streamed(clean, range(4), config, 1, 0)
    else:
        found = drawn(clean, config, np.random.default_rng(0))
    assert (found != clean).mean() > 0.3
    planes, moved = from_levels(clean).astype(np.float64), from_levels(found).astype(np.float64)
    low, high = warp_range(planes, config.flow.radius)
    reach = config.pixel.radius + 0.51 / 255
    assert (moved >= low - reach).all()
    assert (moved <= high + reach).all()


def test_the_random_form_is_an_attack_of_no_steps(world):
    pytest.importorskip("onnxruntime", reason="onnxruntime, of jataug[cpu], is not installed")
    levels, indices = images(), np.array([3, 1, 4, 15])
    augmenter = module.augment(world / "attack.onnx", steps=0, seed=9)
    with jataug.Session.open(world / "attack.onnx", device="cpu", threads=1) as session:
        for clean in (levels, from_levels(levels)):
            wanted = session.attack(clean, None, indices, seed=9, epoch=2, steps=0).adversarial
            if clean is levels:
                found = augmenter(clean, None, indices, epoch=2)
            else:
                found = augmenter(clean.transpose(0, 2, 3, 1), None, indices, epoch=2)
                found = found.transpose(0, 3, 1, 2)
            assert np.array_equal(found, wanted)


def test_every_image_has_its_own_epoch():
    clean, indices, epochs = images(), np.array([3, 1, 4, 3]), np.array([2, 0, 2, 5])
    found = module.augment(RANDOM)(clean, None, indices, epoch=epochs)
    for k in range(4):
        alone = module.augment(RANDOM)(clean[k : k + 1], None, indices[k : k + 1], epoch=epochs[k])
        assert np.array_equal(alone[0], found[k])


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_flows_are_uniform_in_their_budget(norm):
    config = jataug.AttackConfig(flow=FlowBudget(2.0, norm), steps=0)
    flow = drawn_flow(np.random.default_rng(0), (50, 2, 30, 30), config)
    dx, dy = flow[:, 0].ravel(), flow[:, 1].ravel()
    # In a disc E |w|^2 = r^2 / 2, in a square 2 r^2 / 3; 45,000 draws.
    expected = 2.0 if norm == "l2" else 8 / 3
    assert abs(np.mean(dx**2 + dy**2) - expected) < 0.02
    assert max(abs(dx.mean()), abs(dy.mean()), abs((dx * dy).mean())) < 0.03
    length = np.hypot(dx, dy) if norm == "l2" else np.maximum(abs(dx), abs(dy))
    assert 1.99 < length.max() <= np.float32(2.0) * (1 + 1e-7)


def test_flow_and_pixels_use_their_budgets():
    flat = np.full((64, *loading.SHAPE), 128, np.uint8)  # no flow moves it
    for norm, radius in (("linf", 0.1), ("l2", 2.0)):
        config = jataug.AttackConfig(pixel=PixelBudget(radius, norm), steps=0)
        for found in (
            streamed(flat, range(64), config, 0, 0),
            drawn(flat, config, np.random.default_rng(0)),
        ):
            moved = (found.astype(float) - 128) / 255
            size = (
                np.abs(moved).max((1, 2, 3))
                if norm == "linf"
                else np.linalg.norm(moved.reshape(64, -1), axis=1)
            )
            assert 0.9 * radius < size.max() <= radius * 1.05
    ramp = np.broadcast_to(np.arange(12, dtype=np.uint8)[:, None] * 20, loading.SHAPE)[None]
    config = jataug.AttackConfig(flow=FlowBudget(1.5), pixel=PixelBudget(0), steps=0)
    found = drawn(ramp.repeat(64, 0), config, np.random.default_rng(0)).astype(float) - ramp
    inner = found[:, :, 2:-2]
    assert 0.95 * 30 < np.abs(inner).max() <= 31
    assert abs(inner.mean()) < 0.5


def test_a_zero_start_is_refused():
    with pytest.raises(BudgetError, match="start: expected random for steps=0"):
        module.augment(jataug.AttackConfig(start="zero", steps=0))


def test_radii_may_be_changed(world):
    clean = images()
    small = module.augment(RANDOM, pixel="1/255", flow=0)(clean)
    assert 0 < np.abs(small.astype(int) - clean).max() <= 1
    large = module.augment(world / "attack.onnx", steps=0, pixel=0.2, flow=0)(clean)
    assert np.abs(large.astype(int) - clean).max() > 45


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 10, 12, 3), np.int32),), "expected uint8 or floating, got int32"),
        ((np.zeros((10, 12, 3), np.uint8),), r"expected \(batch, height, width, channel\)"),
        ((images(2), None, [1]), "indices: expected 2 integers"),
        ((images(2), None, [1, -2]), "indices: expected 2 integers"),
        ((images(2), None, [1.0, 2.0]), "indices: expected 2 integers"),
    ],
)
def test_wrong_batches_of_images(arguments, message):
    with pytest.raises(DataError, match=message):
        module.augment(RANDOM)(*arguments)


def test_a_wrong_layout():
    with pytest.raises(DataError, match="layout: expected nchw or nhwc"):
        module.augment(RANDOM, layout="chw")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_other_layout_is_refused_unless_it_is_asked_for(dtype):
    first = images().transpose(0, 3, 1, 2).astype(dtype) // 255
    with pytest.raises(DataError, match=r"\(3, 10, 12\).* layout='nchw'"):
        module.augment(RANDOM)(first)
    module.augment(RANDOM, layout="nhwc")(first)


def test_layouts_agree():
    clean = images()
    last = module.augment(RANDOM)(clean)
    first = module.augment(RANDOM, layout="nchw")(clean.transpose(0, 3, 1, 2))
    assert np.array_equal(first.transpose(0, 2, 3, 1), last)


@pytest.mark.parametrize("none", [None, [], np.zeros(0)], ids=["none", "list", "array"])
@pytest.mark.parametrize("steps", [0, 1])
def test_an_empty_batch(world, steps, none):
    augmenter = module.augment(world / "attack.onnx", steps=steps)
    epoch = 0 if none is None else none
    found = augmenter(images(0), none, none, epoch=epoch)
    assert (found.shape, found.dtype) == ((0, *loading.SHAPE), np.uint8)


@pytest.mark.parametrize("steps", [0, 1])
def test_images_without_indices_are_counted(world, steps):
    if steps:
        pytest.importorskip("onnxruntime", reason="onnxruntime, of jataug[cpu], is not installed")
    clean, labels = images(6), np.arange(6) % 3
    augmenter = module.augment(world / "attack.onnx", steps=steps, batch_size=6, threads=1)
    for first, epoch in ((0, 0), (6, 0), (12, 1)):
        rows = range(first, first + 6)
        wanted = augmenter(clean, labels, rows, epoch=epoch)
        assert np.array_equal(augmenter(clean, labels, epoch=epoch), wanted)
    copy = pickle.loads(pickle.dumps(augmenter))
    assert np.array_equal(copy(clean, labels), augmenter(clean, labels, range(6)))


def test_threads_share_one_count():
    clean = np.full((1, *loading.SHAPE), 128, np.uint8)
    augmenter = module.augment(RANDOM)
    wanted = {augmenter(clean, None, [k]).tobytes() for k in range(64)}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: augmenter(clean).tobytes(), range(64)))
    assert len(wanted) == 64
    assert set(found) == wanted


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_draw_apart(method):
    """Workers that run together, and those of a later epoch, and the process that starts them."""
    context, augmenter = multiprocessing.get_context(method), module.augment(RANDOM)
    found = context.Queue()
    loading.augment_twice(augmenter, found)
    for _ in range(2):
        workers = [
            context.Process(target=loading.augment_twice, args=(augmenter, found)) for _ in range(2)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
    drawn_batches = [batch for _ in range(5) for batch in found.get(timeout=60)]
    assert len(set(drawn_batches)) == 10


def test_smoothed_labels_go_to_the_attack(world, source):
    pytest.importorskip("onnxruntime", reason="onnxruntime, of jataug[cpu], is not installed")
    augmenter = module.augment(world / "attack.onnx", threads=1)
    labels = source["label"][:4]
    smooth = np.stack([Smoothing(0.5).of(int(label), 3) for label in labels])
    clean, indices = source["image"][:4], range(4)
    expected = augmenter(clean, labels, indices)
    assert np.array_equal(augmenter(clean, smooth, indices), expected)
    assert not np.array_equal(augmenter(clean, (labels + 1) % 3, indices), expected)


def test_the_device_is_chosen_as_a_session_chooses_it():
    opened, augmenter = jataug.Session.open, module.augment
    devices = [inspect.signature(f).parameters["device"].default for f in (opened, Augmenter)]
    assert devices == ["auto", "auto"]
    assert augmenter(RANDOM)._options["device"] == "auto"


def test_no_session_opens_before_it_is_used(world):
    code = (
        "import sys\nfrom jataug.loaders.numpy import augment\n"
        f"a = augment({str(world / 'attack.onnx')!r})\n"
        "import numpy as np\n"
        f"b = augment({str(world / 'attack.onnx')!r}, steps=0)\n"
        "b(np.zeros((1, 10, 12, 3), np.uint8))\n"
        "print([n for n in ('onnxruntime', 'torch', 'tensorflow', 'jax') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("shape", [(10, 12, 3), (10, 12, 1), (10, 12)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_the_transform_of_one_image(shape, dtype):
    image = np.random.default_rng(0).random(shape)
    image = (image * 255).astype(np.uint8) if dtype == np.uint8 else image.astype(dtype)
    transform = module.RandomJoint(RANDOM)
    one, again, other = (transform(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one.shape, one.dtype) == (shape, dtype)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((4, 4, 3), 1.01), r"finite values in \[0, 1\]"),
        (np.full((4, 4), np.nan), r"finite values in \[0, 1\]"),
        (np.zeros((4, 4), np.int64), "expected uint8 or floating"),
        (np.zeros(4, np.uint8), "expected uint8 or floating"),
    ],
)
def test_the_transform_refuses(image, message):
    with pytest.raises(DataError, match=message):
        module.RandomJoint(RANDOM)(image, np.random.default_rng(0))


@pytest.mark.parametrize("config", ["claim-1", 3, None])
def test_the_transform_wants_a_configuration(config):
    with pytest.raises(BudgetError, match="config: expected an AttackConfig"):
        module.RandomJoint(config)


# What is not installed.


@pytest.mark.parametrize(
    ("name", "package", "advice"),
    [
        ("torch", "torch", "jataug[torch]"),
        ("tf", "tensorflow", "jataug[tf]"),
        ("grain", "grain", "jataug[grain]"),
        ("datasets", "datasets", "jataug[hf]"),
        ("albumentations", "albumentations", "albumentations"),
    ],
)
def test_a_missing_framework_says_what_to_install(name, package, advice):
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from jataug.errors import MissingExtra\n"
        f"try:\n    import jataug.loaders.{name}\nexcept MissingExtra as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = run.stdout.splitlines()
    assert f"{package}, which is not installed: pip install" in line
    assert advice in line


@pytest.mark.parametrize("name", ["numpy", "torch", "tf", "grain", "datasets"])
def test_a_module_imports_no_other_framework(name):
    loading.load(name)
    others = {"torch", "tensorflow", "grain", "datasets"} - {loading.MODULES[name]}
    code = (
        f"import sys, {loading.MODULES[name]}; before = set(sys.modules)\n"
        f"import jataug.loaders.{name}; print(sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(run.stdout.strip().splitlines()[-1]))
    assert "jataug.loaders.labels" in loaded
    assert not loaded & others


def test_the_images_of_another_source_are_refused_at_once(world, tmp_path):
    with np.load(world / "source.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    own = list(zip(images, labels, strict=True))
    assert len(module.mixed(own, world / "npz", 0)) == len(module.dataset(world / "npz"))
    others = [(255 - image, label) for image, label in own]
    with pytest.raises(DataError, match=r"got others: .*; give its own source"):
        module.mixed(others, world / "npz", 0)
    np.savez(tmp_path / "others.npz", images=255 - images, labels=labels)
    with pytest.raises(DataError, match="got others"):
        module.mixed(tmp_path / "others.npz", world / "npz", 0)
    with pytest.raises(DataError, match="got the data set itself"):
        module.mixed(world / "npz", world / "npz", 0)
    with pytest.raises(DataError, match=r"clean: expected the .* samples that .*, got 2;"):
        module.mixed(own[:2], world / "npz", 0)
