"""What every module of jataug.loaders does alike."""

import ast
import inspect
from pathlib import Path

import loading
import numpy as np
import pytest
from loading import FORMATS, MODULES, load, native, records_of

import jataug
from jataug import loaders
from jataug.errors import ArtifactError, BudgetError, CheckError, DataError
from jataug.loaders.samples import is_adversarial

pytestmark = pytest.mark.filterwarnings("ignore:::tensorflow", "ignore:::keras", "ignore:::jax")

NAMES = {"dataset", "mixed", "augment", "RandomJoint"}
HERE = Path(loaders.__file__).parent
RANDOM = jataug.AttackConfig(steps=0)


@pytest.fixture(params=MODULES)
def name(request):
    return request.param


@pytest.fixture
def module(name):
    return load(name)


def test_every_module_has_the_four_names(name):
    tree = ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))
    (listed,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    assert set(listed) >= NAMES
    made = (ast.FunctionDef, ast.ClassDef)
    public = {node.name for node in tree.body if isinstance(node, made)}
    assert {n for n in public if n[0].islower() and n[0] != "_"} - NAMES <= {"stacked"}


@pytest.mark.parametrize("function", ["dataset", "mixed", "augment", "RandomJoint"])
def test_arguments_begin_alike(module, function):
    from jataug.loaders import numpy as plain

    expected = inspect.signature(getattr(plain, function)).parameters
    found = list(inspect.signature(getattr(module, function)).parameters.values())
    assert [p.name for p in found][: len(expected)] == list(expected)
    assert [p.default for p in found][: len(expected)] == [p.default for p in expected.values()]


@pytest.mark.parametrize("form", FORMATS)
def test_dataset_gives_what_is_stored(name, module, world, stored, form):
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow, of jataug[parquet], is not installed")
    found = records_of(name, module.dataset(world / form))
    assert len(found) == len(stored) == loading.COUNT
    for sample, expected in zip(found, stored, strict=True):
        assert sample["image"].dtype == np.uint8
        assert np.array_equal(sample["image"], expected.image)
        assert (sample["label"], sample["index"]) == (expected.label, expected.index)
        assert sample["epoch"] == 0


@pytest.mark.parametrize(
    ("convention", "own", "other"), [("authors", 0.7, 0.15), ("torch", 0.8, 0.1)]
)
def test_smoothed_labels(name, module, world, stored, convention, own, other):
    data = module.dataset(world / "npz", smoothing=0.3, convention=convention)
    for sample, expected in zip(records_of(name, data), stored, strict=True):
        wanted = np.full(loading.CLASSES, other, np.float32)
        wanted[expected.label] = own
        assert sample["label"].dtype == np.float32
        np.testing.assert_allclose(sample["label"], wanted, rtol=1e-6)


def in_epoch(name, module, data, epoch):
    """The samples of an epoch, by index."""
    if name in ("tf", "datasets"):
        data = data(epoch=epoch)
    else:
        data = data()
        if name == "torch":
            data.set_epoch(epoch)
        elif name == "numpy":
            data.epoch = epoch
        else:
            data = data.repeat(epoch + 1)[epoch * loading.COUNT :]
    found = records_of(name, data)
    assert {int(sample["epoch"]) for sample in found} == {epoch}
    return {int(sample["index"]): sample for sample in found}


@pytest.mark.parametrize("epoch", [0, 5])
@pytest.mark.parametrize("ratio", [0, 0.3, 1.0])
def test_mixed_joins_by_index(name, module, world, source, stored, ratio, epoch):
    def data(**options):
        return module.mixed(world / "source.npz", world / "folder", ratio, 7, **options)

    found = in_epoch(name, module, data, epoch)
    assert sorted(found) == list(range(loading.COUNT))
    for index, sample in found.items():
        chosen = is_adversarial(7, epoch, index, ratio)
        assert bool(sample["adversarial"]) == chosen
        wanted = stored[index].image if chosen else source["image"][index]
        assert np.array_equal(sample["image"], wanted)
        assert sample["label"] == source["label"][index]


def test_epochs_differ(name, module, world):
    def data(**options):
        return module.mixed(world / "source.npz", world / "folder", 0.5, 7, **options)

    one, two, again = (in_epoch(name, module, data, epoch) for epoch in (1, 2, 1))
    assert [s["adversarial"] for s in one.values()] != [s["adversarial"] for s in two.values()]
    assert [s["adversarial"] for s in one.values()] == [s["adversarial"] for s in again.values()]


def test_mixed_takes_a_sequence(name, module, world, source):
    clean = list(zip(source["image"], source["label"], strict=True))
    found = records_of(name, module.mixed(clean, world / "tar", 0))
    assert all(np.array_equal(s["image"], clean[int(s["index"])][0]) for s in found)


@pytest.mark.parametrize("eight_bit", [True, False])
def test_random_augmentation_is_numpy_s(name, module, source, eight_bit):
    from jataug.loaders import numpy as plain

    images = source["image"][:6]
    images = images if eight_bit else (images / np.float32(255)).astype(np.float32)
    indices, epoch = np.array([4, 9, 11, 0, 2, 3]), np.array([0, 0, 1, 1, 7, 7])
    wanted = plain.augment(RANDOM, seed=5)(images, None, indices, epoch=epoch)
    found = module.augment(RANDOM, seed=5)(native(name, images), None, indices, epoch=epoch)
    array = loading.batch_of(name, found)
    assert array.dtype == images.dtype
    assert np.array_equal(array, wanted)
    assert (array != images).mean() > 0.5


def test_batches_are_augmented_as_they_come(name, module, source):
    images, indices = source["image"][:4], np.array([7, 8, 9, 3])
    augmenter = module.augment(RANDOM, seed=1)
    batch = {"image": native(name, images), "index": indices, "epoch": np.full(4, 2), "more": "x"}
    found = augmenter(batch)
    alone = augmenter(native(name, images), None, indices, epoch=2)
    assert np.array_equal(loading.batch_of(name, found["image"]), loading.batch_of(name, alone))
    assert found["more"] == "x"
    assert np.array_equal(loading.batch_of(name, batch["image"]), images)


def test_the_artifact_s_attack(name, module, world, source):
    pytest.importorskip("onnxruntime", reason="onnxruntime, of jataug[cpu], is not installed")
    images, labels, indices = source["image"][:8], source["label"][:8], np.arange(8) + 20
    with jataug.Session.open(world / "attack.onnx", device="cpu", threads=1) as session:
        wanted = session.attack(images, labels, indices, seed=2, epoch=3)
    augmenter = module.augment(world / "attack.onnx", seed=2, threads=1)
    found = augmenter(native(name, images), labels, indices, epoch=3)
    assert np.array_equal(loading.batch_of(name, found), wanted.adversarial)
    assert wanted.success.mean() > 0.5


@pytest.mark.parametrize("ratio", [-0.1, 1.5, float("nan"), "half", True])
def test_ratio_outside(module, world, ratio):
    with pytest.raises(DataError, match=r"ratio: expected a number in \[0, 1\], got"):
        module.mixed(world / "source.npz", world / "folder", ratio)


@pytest.mark.parametrize("value", [1.5, -0.01, float("nan"), float("inf")])
def test_floats_outside(name, module, source, value):
    images = (source["image"][:3] / np.float32(255)).astype(np.float32)
    images[1, 2, 3, 0] = value
    with pytest.raises(DataError, match=r"finite values in \[0, 1\], image 1 has others"):
        module.augment(RANDOM)(native(name, images))


def test_an_artifact_for_another_size(name, module, world, source):
    for steps in (0, 2):
        augmenter = module.augment(world / "turned.onnx", steps=steps)
        with pytest.raises(DataError, match=r"turned\.onnx was made for, got \(2, "):
            augmenter(native(name, source["image"][:2]))


def test_a_set_that_does_not_verify(module, copied):
    root = copied("folder")
    victim = sorted((root / "images").rglob("*.png"))[5]
    victim.unlink()
    for make in (module.dataset, lambda path: module.mixed([], path)):
        with pytest.raises(CheckError, match=f"verifies: .*{victim.name}.*run jataug verify"):
            make(root)


def test_no_set_there(module, tmp_path):
    with pytest.raises(DataError, match="expected a data set, got a place without"):
        module.dataset(tmp_path)


def test_a_configuration_has_no_model(module):
    with pytest.raises(BudgetError, match="steps: expected 0, got 10: a configuration has no"):
        module.augment(jataug.AttackConfig())


def test_no_artifact(module, tmp_path):
    with pytest.raises(ArtifactError, match="expected an attack artifact, found no file"):
        module.augment(tmp_path / "none.onnx", steps=0)
