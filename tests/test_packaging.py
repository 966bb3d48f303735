"""What pip gets: one top-level package, every subpackage in it, and the data of the demo."""

import itertools
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

import jataug

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"jataug": "jataug", "export": "jataug.export", "cli": "jataug.cli"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def packages_in(root: Path) -> set[str]:
    """Import names of the folders that hold Python files."""
    found = set()
    for folder, package in FOLDERS.items():
        for file in (root / folder).rglob("*.py"):
            found.add(".".join([package, *file.parent.relative_to(root / folder).parts]))
    return found


def files_in(root: Path) -> set[str]:
    """Paths inside the wheel of every Python file in the tree."""
    return {
        f"{package.replace('.', '/')}/{file.relative_to(root / folder).as_posix()}"
        for folder, package in FOLDERS.items()
        for file in (root / folder).rglob("*.py")
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the wheel is built from: build/ and the egg-info of a work tree go stale."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    run = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Warning" not in run.stdout + run.stderr, run.stdout + run.stderr
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def test_package_list_and_tree_agree() -> None:
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert set(listed) == packages_in(ROOT)
    assert listed == sorted(set(listed))


def test_packages_in_sees_a_folder_that_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "export" / "rules" / "new").mkdir(parents=True)
    (tmp_path / "export" / "rules" / "new" / "one.py").touch()
    assert packages_in(tmp_path) == {"jataug.export.rules.new"}


def test_every_package_has_an_init() -> None:
    listed = PROJECT["tool"]["setuptools"]["packages"]
    inits = {f"{package.replace('.', '/')}/__init__.py" for package in listed}
    assert inits <= files_in(ROOT)


def test_wheel_has_one_top_level_package(names: set[str]) -> None:
    version = PROJECT["project"]["version"]
    assert {name.split("/")[0] for name in names} == {"jataug", f"jataug-{version}.dist-info"}


def test_wheel_has_every_module_and_no_other(names: set[str], source: Path) -> None:
    assert {name for name in names if name.endswith(".py")} == files_in(source)
    assert "jataug/export/__init__.py" in names


@pytest.mark.parametrize(
    "data",
    [
        "jataug/py.typed",
        "jataug/demo/classifier.onnx",
        "jataug/demo/images.npz",
        "jataug/demo/demo.json",
        "jataug/demo/FASHION-MNIST-LICENSE.txt",
    ],
)
def test_wheel_has_the_data(data: str, names: set[str]) -> None:
    assert data in names


def test_wheel_carries_the_licence(names: set[str]) -> None:
    assert [name for name in names if name.endswith("dist-info/licenses/LICENSE")]


def test_the_installed_wheel_imports(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import jataug, jataug.export, jataug.cli\n"
        "print(jataug.__file__, jataug.export.__file__, jataug.cli.__file__, sep='\\n')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path.parent, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert all(Path(line).is_relative_to(tmp_path) for line in run.stdout.splitlines())


@pytest.mark.parametrize("name", ["export", "cli", "material"])
def test_folders_are_no_packages_of_their_own(name: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert f"No module named '{name}'" in run.stderr


def test_versions_agree() -> None:
    version = PROJECT["project"]["version"]
    assert jataug.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_console_script_exists(tmp_path: Path) -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="jataug")
    assert script.value == PROJECT["project"]["scripts"]["jataug"]
    command = Path(sys.executable).with_name("jataug")
    run = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "Usage: jataug" in run.stdout


def pins_in(name: str) -> dict[str, str]:
    """Package -> version of a file of constraints, which has nothing but such pins."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert [pair for pair in pairs if len(pair) != 2] == []
    return {package.lower().replace("_", "-"): version for package, version in pairs}


def test_constraints_pin_exactly_what_the_extras_ask_for() -> None:
    pinned = pins_in("constraints.txt")
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *itertools.chain(*extras.values())]
    named = {item.split("[")[0].split(">")[0].split("=")[0].strip().lower() for item in wanted}
    # The gpu extra and its CUDA libraries follow the driver of the machine.
    assert named - {"jataug", "onnxruntime-gpu"} - set(pinned) == set()
    assert pinned["torch"] == "2.13.0"


TOOLS = {"dev", "docs"}  # of developers: the newest are good enough
APART = {"gpu", "grain", "tf"}  # need another machine, or stand in nobody's dependencies but alone


def test_the_lowest_constraints_are_the_bounds_of_pyproject() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    chosen = [items for name, items in extras.items() if name not in TOOLS | APART]
    wanted = [*PROJECT["project"]["dependencies"], *itertools.chain(*chosen)]
    found = [re.fullmatch(r"([a-z0-9-]+)(?:\[[a-z,]+\])?>=([0-9.]+)", item) for item in wanted]
    others = [item for item, one in zip(wanted, found, strict=True) if one is None]
    assert all(item.startswith("jataug[") for item in others), others
    bounds = {one[1]: Version(one[2]) for one in found if one}
    pinned = pins_in("constraints-lowest.txt")
    assert bounds == {name: Version(pinned[name]) for name in bounds}
