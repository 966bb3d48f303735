"""Wheel and sdist: the same bytes from the same tree, and all that the tests need."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("jataug", "export", "cli", "tests", "docs", "examples", "benchmarks", ".ci")
FILES = (
    "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff",
    "CONTRIBUTING.md", "Makefile", "constraints.txt", "constraints-lowest.txt",
)  # fmt: skip
LEFT = shutil.ignore_patterns("__pycache__", "node_modules", "build", "site")

pytestmark = pytest.mark.heavy


def built(root: Path, mtime: int) -> Path:
    """Build a copy of the tree whose files have this time; return the folder of the results."""
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, root / name, ignore=LEFT)
    for path in root.rglob("*"):
        os.utime(path, (mtime, mtime))
    done = subprocess.run(
        [sys.executable, root / ".ci" / "dist.py", root / "dist"],
        capture_output=True, text=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "dist"


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("release")
    return built(root / "one", 1_600_000_000), built(root / "another", 1_650_000_000)


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_two_builds_are_byte_identical(kind: str, twice: tuple[Path, Path]) -> None:
    one, another = (next(folder.glob(kind)) for folder in twice)
    assert one.name == another.name
    assert one.read_bytes() == another.read_bytes()


def test_the_sdist_holds_what_tests_need(twice: tuple[Path, Path], tmp_path: Path) -> None:
    (path,) = twice[0].glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if kept.returncode != 0:
        pytest.skip("not a git checkout: nothing to compare the sdist with")
    top = {*FOLDERS, *FILES}
    wanted = [name for name in kept.stdout.splitlines() if name.split("/")[0] in top]
    assert len(wanted) > 400
    assert [name for name in wanted if not (root / name).exists()] == []


def test_the_sdist_installs(twice: tuple[Path, Path], tmp_path: Path) -> None:
    (path,) = twice[0].glob("*.tar.gz")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--target", tmp_path / "site", path],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    code = "import jataug, jataug.export, jataug.cli; print(jataug.__version__, jataug.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert run.stdout.split() == [version, str(tmp_path / "site" / "jataug" / "__init__.py")]
