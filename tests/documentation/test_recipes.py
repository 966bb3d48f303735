"""The patches of docs/recipes.md, applied to a copy of the tree, and used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documentation.pages import ROOT, blocks
from material import DEMO

PATCHES = [block.text for block in blocks("docs/recipes.md") if block.language == "diff"]
STALE = "the patch no longer fits the tree: make it again by hand, with git diff -U1"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy, laid out as the wheel is, so that it can be imported from there."""
    for name in ("jataug", "export", "cli", "docs/schemas"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("export", "cli"):
        (tmp_path / "jataug" / name).symlink_to(tmp_path / name, target_is_directory=True)
    return tmp_path


def patched(tree: Path, number: int) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    command = [git, "apply", "--unidiff-zero", "-"]
    done = subprocess.run(
        command, cwd=tree, input=PATCHES[number], text=True, capture_output=True,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)},
    )  # fmt: skip
    assert done.returncode == 0, f"{STALE}\n{done.stderr}"


def python(tree: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tree, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tree), "DEMO": str(DEMO)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


MAKE = """
import os
from pathlib import Path
import numpy as np
import jataug
from jataug.cli import main
from jataug.export import export_attack
assert Path(jataug.__file__).is_relative_to(Path.cwd()), jataug.__file__
demo = Path(os.environ["DEMO"])
export_attack(demo / "classifier.onnx", jataug.AttackConfig(steps=1), "attack.onnx")
def run(*words):
    main([str(word) for word in words], standalone_mode=False)
def generate(form, source=demo / "images.npz", out=None):
    run("generate", "attack.onnx", source, out or form, "--format", form, "--limit", 20,
        "--batch-size", 8, "--shard-size", 8, "--save-flow")
generate("npz")
"""

FORMAT = """
generate("npy")
run("verify", "npy", "--source", demo / "images.npz", "--model", "attack.onnx")
plain, new = jataug.open_dataset("npz"), jataug.open_dataset("npy")
for expected, found in zip(plain, new, strict=True):
    assert np.array_equal(expected.image, found.image), found.key
    assert np.array_equal(expected.flow, found.flow), found.key
generate("npy", source="npy", out="again")
from jataug.loaders.numpy import dataset
assert np.array_equal(dataset("npy", verify="full")[3]["image"], plain[3].image)
file = next(Path("npy/images").rglob("*.npy"))
data = bytearray(file.read_bytes())
data[-1] ^= 1
file.write_bytes(data)
report = jataug.verify("npy")
print(len(report.problems), "problem")
"""

LOADER = """
from jataug.loaders import numpy as plain, pairs
for name in ("dataset", "mixed", "augment", "RandomJoint"):
    assert hasattr(pairs, name)
data = pairs.dataset("npz")
for sample, (image, label) in zip(plain.dataset("npz"), data, strict=True):
    assert np.array_equal(sample["image"], image) and sample["label"] == label
print(len(data), "pairs")
"""


RUNTIME = """
with np.load(demo / "images.npz") as arrays:
    images, labels = arrays["images"][:3, ..., None], arrays["labels"][:3]
found = []
for backend in ("onnxruntime", "reference"):
    with jataug.Session.open("attack.onnx", device="cpu", backend=backend) as session:
        found.append(session.attack(images, labels, seed=5))
        print(session.providers)
assert np.array_equal(found[0].adversarial, found[1].adversarial)
assert (found[0].adversarial != images).any()
assert np.allclose(found[0].logits, found[1].logits, atol=1e-4)
run("generate", "attack.onnx", demo / "images.npz", "out", "--backend", "reference", "--limit", 4)
print(jataug.verify("out").ok)
"""


def test_there_are_three() -> None:
    files = ["formats/npy.py", "loaders/pairs.py", "runtime/reference.py"]
    assert [file in patch for file, patch in zip(files, PATCHES, strict=True)] == [True] * 3


def test_the_format(tree: Path) -> None:
    patched(tree, 0)
    assert python(tree, MAKE + FORMAT).splitlines()[-1] == "1 problem"


def test_the_loader(tree: Path) -> None:
    patched(tree, 1)
    assert python(tree, MAKE + LOADER).splitlines()[-1] == "20 pairs"


def test_the_runtime(tree: Path) -> None:
    patched(tree, 2)
    lines = python(tree, MAKE + RUNTIME).splitlines()
    assert "['onnx reference']" in lines
    assert lines[-1] == "True"


def test_a_stale_patch_fails(tree: Path) -> None:
    plan = tree / "jataug" / "dataset" / "plan.py"
    plan.write_text(plan.read_text().replace("FORMATS = (", "FORMATS = [").replace('")', '"]'))
    with pytest.raises(AssertionError, match="no longer fits"):
        patched(tree, 0)
