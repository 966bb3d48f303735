"""docs/errors.md: every class, and every message as it looks."""

import inspect
import re
import shlex
import shutil
import sys
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from documentation.pages import blocks, text_of
from documentation.worlds import demo_model

import jataug
from jataug import errors
from jataug.cli import main

ROWS = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", text_of("docs/errors.md"), re.M))
EXAMPLES = [
    example
    for block in blocks("docs/errors.md")
    if block.language == "console"
    for example in re.findall(r"^\$ (.*)\n(Error: .*)$", block.text, re.M)
]


def test_every_class_has_a_row() -> None:
    assert ROWS.keys() == set(errors.__all__)
    public = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, errors.JataugError)
    }
    assert public == set(errors.__all__) <= set(jataug.__all__)


@pytest.mark.parametrize("name", ROWS)
def test_the_builtin_is_right(name: str) -> None:
    builtin = {"Exception": Exception}.get(ROWS[name]) or getattr(
        __import__("builtins"), ROWS[name]
    )
    assert builtin in getattr(errors, name).__mro__


def test_every_class_but_the_base_has_a_message() -> None:
    said = text_of("docs/errors.md").partition("## Examples")[2]
    assert [name for name in errors.__all__ if name not in said and name != "JataugError"] == []
    assert len(EXAMPLES) == len(re.findall(r"^\$ ", said, re.M)) == 9


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("errors")
    demo_model(root)
    for number, name in enumerate(sorted(path.name for path in (root / "photos").iterdir())):
        folder = root / "photos" / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        (root / "photos" / name).rename(folder / name)
    text = """
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[N, 3, 8, 8] image) => (float[N, 3] logits) <float[N, 3] d> {
            d = Det (image)
            logits = Identity (d)
        }
    """
    onnx.save(onnx.parser.parse_model(text), root / "det.onnx")
    for name in ("dataset", "damaged"):
        jataug.generate(
            root / "attack.onnx", root / "photos", root / name, labels="predicted", device="cpu"
        )
    file = next((root / "damaged" / "images").rglob("*.png"))
    file.write_bytes(file.read_bytes() + b"x")
    return root


@pytest.mark.parametrize(("command", "message"), EXAMPLES, ids=[c for c, _ in EXAMPLES])
def test_message(
    command: str, message: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "here"
    shutil.copytree(place, root)
    monkeypatch.chdir(root)
    if "ONNX Runtime is not installed" in message:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = CliRunner().invoke(main, shlex.split(command)[1:])
    assert done.output.splitlines()[-1].replace(f"{root}/", "") == message
    assert done.exit_code == (1 if "verify" in command else 2)
    assert not any((root / name).exists() for name in ("a.onnx", "grid.png", "out/images"))


def test_debug_shows_the_traceback(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    words = ["export", "model.onnx", "-o", "a.onnx", "--flow", "-1"]
    assert isinstance(CliRunner().invoke(main, words).exception, SystemExit)
    assert isinstance(CliRunner().invoke(main, [*words, "--debug"]).exception, jataug.BudgetError)
