"""Who may import whom: the arrows between the folders, and the packages each of them may use.

Read from the source, in functions too. Imports under TYPE_CHECKING do not count.
"""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"jataug": "jataug", "export": "jataug.export", "cli": "jataug.cli"}
LONGEST = 400

FOUNDATION = {
    "artifact",
    "atomic",
    "budget",
    "checks",
    "config",
    "errors",
    "finalize",
    "preprocessing",
    "process",
    "result",
    "smoothing",
    "streams",
    "units",
    "warp",
}
SHARED = FOUNDATION | {"jataug"}  # "jataug" is the package itself, as in `import jataug`
EXPORT = SHARED | {"runtime", "export"}
ARROWS = {
    "jataug": FOUNDATION,
    **dict.fromkeys(FOUNDATION, SHARED),
    "runtime": SHARED
    | {"attack"},  # of .resident alone: arrays on a CUDA device are finished in torch
    "attack": SHARED,
    "data": SHARED | {"dataset"},  # data.open alone: a data set is a source too
    "drawing": SHARED,
    "dataset": SHARED | {"data", "drawing", "runtime"},
    "export": SHARED | {"runtime"},
    "generator": SHARED | {"data", "dataset", "drawing", "runtime"},
    "selfcheck": SHARED | {"runtime"},
    "loaders": SHARED | {"attack", "data", "dataset", "runtime"},
    "bridge": EXPORT,
    "evaluation": EXPORT | {"attack", "bridge", "data", "dataset", "drawing"},
    "trainer": EXPORT | {"attack", "data", "dataset"},
    "demo": EXPORT | {"data", "dataset", "generator"},
}
ARROWS["cli"] = set(ARROWS)

THIRD_PARTIES = {
    **{name: {"numpy"} for name in {"jataug", "demo"} | FOUNDATION},
    "artifact": {"google", "numpy", "onnx"},  # in functions: the manifest is metadata of the file
    "runtime": {"numpy", "onnx", "onnxruntime", "openvino", "tract"},
    "selfcheck": {"numpy", "onnx"},
    "attack": {"numpy", "torch"},
    "data": {"datasets", "numpy", "PIL", "pyarrow"},  # in functions: extras
    "drawing": {"numpy", "PIL"},
    "dataset": {"numpy", "PIL", "pyarrow"},
    "generator": {"numpy", "PIL"},
    "loaders": {"numpy", "PIL"},
    "bridge": {"numpy", "torch"},
    "evaluation": {"jinja2", "markupsafe", "numpy", "PIL"},
    "trainer": {"matplotlib", "numpy", "safetensors", "torch"},
    "export": {"numpy", "onnx", "onnx_ir", "onnxscript", "ml_dtypes", "google"},  # protobuf
    "cli": {"click", "numpy", "tqdm"},
}
MORE_IN = {
    "jataug.trainer.models": {"timm"},  # in a function: an extra
    "jataug.generator.engines.ray": {"ray"},
    "jataug.export.model.load": {"torch"},
    "jataug.loaders.albumentations": {"albumentations"},
    "jataug.loaders.datasets": {"datasets"},
    "jataug.loaders.grain": {"grain", "jax"},
    "jataug.loaders.tensors": {"torch"},
    "jataug.loaders.tf": {"tensorflow"},
    "jataug.loaders.torch": {"torch"},
    "jataug.runtime.on_device.foreign": {"torch"},
    "jataug.runtime.on_device.resident": {"torch"},
    "jataug.runtime.on_device.shared": {"torch"},
    "jataug.runtime.on_device.tensor_calls": {"torch"},
    "jataug.evaluation.attacks.autoattack": {"pyautoattack", "torch"},
    "jataug.evaluation.models.torch": {"torch"},
}
EXPORT_LAYERS = (
    "graph",
    "rules",
    "model",
    "passes",
    "preprocess",
    "gradient",
    "attack",
    "check",
    "save",
    "build",
    "preflight",
)
"""The folders and modules of export/, from the bottom up: each may import those before it."""

MODULES_IN_A_FOLDER = 14
SISTERS = {"rules", "formats", "loaders", "engines", "models", "cli"}
"""Folders of sister modules, which share names with others on purpose, as `numpy` and `torch`."""
TWINS = {"finalize", "warp"}
"""The same step of the method in numpy, torch and ONNX."""

UNIX_ONLY = {"fcntl", "grp", "pwd", "resource", "termios"}
STANDARD = set(sys.stdlib_module_names)


class Import(NamedTuple):
    module: str
    name: str | None  # of `from module import name`
    deferred: bool  # inside a function


def imports(tree: ast.Module, package: str) -> list[Import]:
    """Every import that runs, relative ones resolved against `package`."""
    found = []
    for node, deferred in _walk(tree, deferred=False):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, None, deferred) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level]
            module = ".".join((base if node.level else []) + (node.module or "").split("."))
            module = module.strip(".")
            found += [Import(module, alias.name, deferred) for alias in node.names]
    return found


def _walk(node: ast.AST, deferred: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield other, deferred
                yield from _walk(other, deferred)
            continue
        yield child, deferred
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _walk(child, deferred or inside)


def modules() -> dict[str, Path]:
    found = {}
    for folder, package in FOLDERS.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            found[".".join([package, *parts])] = file
    return found


MODULES = modules()
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in MODULES.items()}


def package_of(name: str) -> str:
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]


IMPORTS = {name: imports(tree, package_of(name)) for name, tree in TREES.items()}


def unit(module: str) -> str:
    """The part of the library that a module belongs to: jataug.export.rules.linear -> export."""
    return module.split(".")[1] if "." in module else "jataug"


def target(found: Import) -> str:
    """The module that an import of our own reaches."""
    submodule = f"{found.module}.{found.name}"
    return submodule if submodule in MODULES else found.module


def is_ours(found: Import) -> bool:
    return found.module.split(".")[0] == "jataug"


def cycle_in(graph: dict[str, set[str]]) -> str:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def test_no_module_imports_itself_through_others() -> None:
    graph = {name: {target(found) for found in IMPORTS[name] if is_ours(found)} for name in MODULES}
    assert cycle_in(graph) == ""


@pytest.mark.parametrize("name", MODULES)
def test_arrows(name: str) -> None:
    assert unit(name) in ARROWS, f"{name}: say in ARROWS what it may import"
    reached = {unit(target(found)) for found in IMPORTS[name] if is_ours(found)}
    assert reached - {unit(name)} <= ARROWS[unit(name)]


def layer(module: str) -> int:
    """The position of a module of export/ in its layers; its face is above all."""
    part = module.removeprefix("jataug.export").strip(".").split(".")[0]
    return EXPORT_LAYERS.index(part) if part else len(EXPORT_LAYERS)


@pytest.mark.parametrize("name", [name for name in MODULES if unit(name) == "export"])
def test_layers_of_export(name: str) -> None:
    reached = {target(found) for found in IMPORTS[name] if unit(target(found)) == "export"}
    assert {module for module in reached if layer(module) > layer(name)} == set()


def folders() -> dict[str, list[str]]:
    """The names of the modules in each folder, its __init__ left out."""
    held: dict[str, list[str]] = {}
    for file in MODULES.values():
        if file.stem != "__init__":
            held.setdefault(file.parent.relative_to(ROOT).as_posix(), []).append(file.stem)
    return held


@pytest.mark.parametrize("folder", [f for f in folders() if f not in {"cli", "export/rules"}])
def test_folders_are_small(folder: str) -> None:
    assert len(folders()[folder]) <= MODULES_IN_A_FOLDER


def test_names_are_unique() -> None:
    """No two modules share a name, but in folders of sister modules."""
    places: dict[str, list[str]] = {}
    for folder, names in folders().items():
        if folder.rpartition("/")[2] not in SISTERS:
            for name in {*names} - TWINS:
                places.setdefault(name, []).append(folder)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("name", MODULES)
def test_third_parties(name: str) -> None:
    allowed = STANDARD | THIRD_PARTIES[unit(name)] | MORE_IN.get(name, set())
    used = {found.module.split(".")[0] for found in IMPORTS[name] if not is_ours(found)}
    assert used <= allowed


@pytest.mark.parametrize("name", MODULES)
def test_imports_on_windows(name: str) -> None:
    early = {found.module.split(".")[0] for found in IMPORTS[name] if not found.deferred}
    assert not early & UNIX_ONLY
    assert not names_at_import(TREES[name]) & {"os.fork", "os.register_at_fork"}


def names_at_import(tree: ast.Module) -> set[str]:
    return {
        ast.unparse(node)
        for node, deferred in _walk(tree, deferred=False)
        if isinstance(node, ast.Attribute) and not deferred
    }


@pytest.mark.parametrize("name", MODULES)
def test_files_are_short(name: str) -> None:
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST


@pytest.mark.parametrize("name", [name for name in MODULES if unit(name) != "cli"])
def test_the_library_does_not_print(name: str) -> None:
    assert lines_that_print(TREES[name]) == []


def lines_that_print(tree: ast.Module) -> list[int]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if ast.unparse(call.func) == "print"]


def test_import_jataug_loads_numpy_at_most(tmp_path: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import jataug\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split()) - STANDARD
    assert "jataug" in loaded
    assert {name for name in loaded if not name.startswith("_")} <= {"jataug", "numpy"}


def read(source: str, package: str = "jataug.data") -> list[Import]:
    return imports(ast.parse(source), package)


def test_reader_leaves_out_type_checking() -> None:
    source = "if TYPE_CHECKING:\n    import torch\nelse:\n    import numpy"
    assert read(source) == [Import("numpy", None, False)]


def test_reader_sees_functions_and_methods() -> None:
    source = "class A:\n    def f(self):\n        if self:\n            import torch"
    assert read(source) == [Import("torch", None, True)]


def test_reader_resolves_relative_imports() -> None:
    assert read("from ..errors import DataError") == [Import("jataug.errors", "DataError", False)]
    assert read("from . import png") == [Import("jataug.data", "png", False)]
    assert read("from .. import errors") == [Import("jataug", "errors", False)]
    assert target(Import("jataug", "errors", False)) == "jataug.errors"
    assert target(Import("jataug.errors", "DataError", False)) == "jataug.errors"


def test_cycle_is_found() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}}) == ""


def test_faults_are_found() -> None:
    assert lines_that_print(ast.parse("def f():\n    print('hello')")) == [2]
    assert "os.fork" in names_at_import(ast.parse("import os\nstart = os.fork"))
    assert names_at_import(ast.parse("import os\ndef start():\n    os.fork()")) == set()
