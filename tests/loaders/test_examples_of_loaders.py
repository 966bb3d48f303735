"""The examples run on what `jataug generate` makes, wherever their frameworks are installed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TRAINING = {
    "train_with_torch": "torch",
    "train_with_keras": "tensorflow",
    "train_with_jax": "grain",
    "train_with_datasets": "datasets",
}
READING = {
    "read_with_dali": "nvidia.dali",
    "read_tar_with_webdataset": "webdataset",
    "read_parquet_with_datasets": "datasets",
}
LOSS = re.compile(r"^epoch \d+: loss ([\d.]+)$", re.M)

BLOCK = """
import sys, runpy
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "jataug":
            raise ModuleNotFoundError("jataug is not installed")
sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def have(package):
    parent = package.partition(".")[0]  # others than DALI's have a package nvidia, too
    if not all(importlib.util.find_spec(name) for name in dict.fromkeys((parent, package))):
        pytest.skip(f"{package} is not installed here; test_fresh_installs.py runs this with it")


def run(name, *arguments, without_jataug=False):
    script = str(EXAMPLES / f"{name}.py")
    begin = [sys.executable, "-c", BLOCK, script] if without_jataug else [sys.executable, script]
    done = subprocess.run(
        [*begin, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A data set of the shipped images, made by this or by another process."""
    made = os.environ.get("JATAUG_LOADERS_DEMO")
    if made:
        return Path(made)
    from jataug.demo import run_demo

    root = tmp_path_factory.mktemp("demo")
    run_demo(root, device="cpu")
    return root


@pytest.mark.parametrize("name", TRAINING)
def test_training(name, demo):
    have(TRAINING[name])
    said = run(name, demo / "dataset")
    losses = [float(loss) for loss in LOSS.findall(said)]
    assert len(losses) > 5, said
    assert losses[-1] < 0.7 * losses[0]
    (accuracy,) = re.findall(r"^accuracy on the adversarial images: ([\d.]+)$", said, re.M)
    assert float(accuracy) > 0.7  # 0.000 for the classifier that they were made for


@pytest.mark.parametrize("name", TRAINING)
def test_training_on_attacks(name, world):
    """With an artifact instead of the random form: one epoch."""
    have(TRAINING[name])
    have("onnxruntime")
    options = ("--clean", world / "source.npz", "--attack", world / "attack.onnx", "--epochs", 1)
    said = run(name, world / "folder", *options)
    assert len(LOSS.findall(said)) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_dali(demo, workers):
    have(READING["read_with_dali"])
    said = run("read_with_dali", demo / "dataset", "--workers", workers)
    found = re.findall(r"^epoch \d: (\d+) images, (\d+) adversarial, mean ([\d.]+)$", said, re.M)
    assert [line[0] for line in found] == ["512", "512"]
    # The draws of seed 0, whatever the workers.
    assert [line[1] for line in found] == expected_adversarial()


def expected_adversarial():
    from jataug.loaders.samples import is_adversarial

    return [str(sum(is_adversarial(0, e, k, 0.5) for k in range(512))) for e in (0, 1)]


@pytest.mark.parametrize(
    ("name", "form"),
    [("read_tar_with_webdataset", "tar"), ("read_parquet_with_datasets", "parquet")],
)
def test_reading_without_jataug(name, form, world, stored):
    have(READING[name])
    said = run(name, world / form, without_jataug=True)
    fooled = sum(bool(sample.record["success"]) for sample in stored)
    assert said.splitlines() == [
        "40 images (10, 12, 3), 3 classes",
        f"{fooled} change the prediction of the model that was attacked",
    ]


def test_reading_parquet_through_a_cache(world, tmp_path):
    have("datasets")
    options = (world / "parquet", "--cache", tmp_path / "cache")
    said = run("read_parquet_with_datasets", *options, without_jataug=True)
    assert said.startswith("40 images (10, 12, 3), 3 classes\n")


def test_the_block_blocks(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import jataug")
    done = subprocess.run(
        [sys.executable, "-c", BLOCK, str(script)], capture_output=True, text=True
    )
    assert "jataug is not installed" in done.stderr


def test_every_example_is_run():
    names = {path.stem for path in EXAMPLES.glob("*_with_*.py")}
    ours = {name for name in names if name.startswith(("train_with", "read_"))}
    assert ours == TRAINING.keys() | READING.keys()
