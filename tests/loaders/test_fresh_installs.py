"""Each extra alone, in a new environment: its example runs, and then its tests.

What the development environment lacks (TensorFlow, grain and jax, DALI, albumentations, kornia) is
tested here and nowhere else.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

import material
import pytest

from jataug.demo import run_demo

ROOT = Path(__file__).resolve().parents[2]
# On a loaded machine and a slow line: TensorFlow alone is 700 MB.
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(2400)]


class Fresh(NamedTuple):
    """What is installed first, the example that must run then, what the tests want on top."""

    install: tuple[str, ...]
    examples: tuple[str, ...]
    more: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()


TESTING = ("{wheel}[cpu,parquet]", "pytest", "pytest-timeout")
KINDS = {
    "torch": Fresh(
        ("torch==2.13.0", "{wheel}[torch]"),
        ("train_with_torch",),
        ("torchdata", "torchvision", "kornia", "albumentations"),
        (
            "test_torch_loader.py",
            "test_albumentations_transform.py",
            "test_contract.py -k torch",
            "test_first_lines.py -k torch",
            "test_examples_of_loaders.py -k train_with_torch",
        ),
    ),
    "tf": Fresh(
        ("{wheel}[tf]",),
        ("train_with_keras",),
        (),
        (
            "test_tf_loader.py",
            "test_contract.py -k tf",
            "test_first_lines.py -k tf",
            "test_examples_of_loaders.py -k train_with_keras",
            "test_core.py -k framework",
        ),
    ),
    "grain": Fresh(
        ("{wheel}[grain]",),
        ("train_with_jax",),
        (),
        (
            "test_grain_loader.py",
            "test_contract.py -k grain",
            "test_first_lines.py -k grain",
            "test_examples_of_loaders.py -k train_with_jax",
            "test_core.py -k framework",
        ),
    ),
    "hf": Fresh(
        ("{wheel}[hf]",),
        ("train_with_datasets", "read_parquet_with_datasets"),
        (),
        (
            "test_datasets_loader.py",
            "test_contract.py -k datasets",
            "test_first_lines.py -k datasets",
            "test_examples_of_loaders.py -k train_with_datasets",
        ),
    ),
    "tar": Fresh(("{wheel}[tar]",), ("read_tar_with_webdataset",)),
    "dali": Fresh(
        ("{wheel}", "nvidia-dali-cuda120"),
        ("read_with_dali",),
        (),
        ("test_examples_of_loaders.py -k dali",),
    ),
    "none": Fresh(
        ("{wheel}",),
        (),
        (),
        ("test_contract.py -k numpy", "test_core.py", "test_first_lines.py -k numpy"),
    ),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("jataug", "export", "cli"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    run_demo(root, device="cpu")
    return root


def install(python, packages, wheel):
    named = [package.format(wheel=wheel) for package in packages]
    # Compiled are only the modules that are imported: half of the time goes into the others.
    options = ["--disable-pip-version-check", "--quiet", "--no-compile"]
    options += ["-c", str(ROOT / "constraints.txt")]
    what = f"pip install {' '.join(named)}"
    material.fetched(what, [str(python), "-m", "pip", "install", *options, *named], 1200)


def available(python, packages, wheel):
    try:
        install(python, packages, wheel)
    except material.UnavailableError as error:
        if os.environ.get("CI") == "true" or os.environ.get("JATAUG_REQUIRE_MATERIAL") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def python(tmp_path):
    """The interpreter of a new environment, which is removed in the end."""
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    yield place / "bin" / "python"
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("kind", KINDS)
def test_an_extra_alone(kind, python, wheel, demo, world, tmp_path):
    fresh = KINDS[kind]
    available(python, fresh.install, wheel)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JATAUG_LOADERS_WORLD": str(world),
        "JATAUG_LOADERS_DEMO": str(demo),
    }

    def run(*command):
        done = subprocess.run(
            [str(python), *command],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout

    for example in fresh.examples:
        data = {"tar": world / "tar", "parquet": world / "parquet"}.get(
            example.split("_")[1], demo / "dataset"
        )
        assert run(f"examples/{example}.py", str(data))
    if not fresh.tests:
        return
    available(python, (*TESTING, *fresh.more), wheel)
    for tests in fresh.tests:
        name, *options = tests.split()
        begin = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--confcutdir", "tests/loaders"]
        said = run("-P", *begin, f"tests/loaders/{name}", *options)
        assert " passed" in said
