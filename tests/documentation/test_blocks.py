"""Every block of code in the README and in docs/ is run, or parsed where running it takes too long
or more than this machine has.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from documentation.pages import PAGES, ROOT, Block, blocks, commands, text_of
from documentation.worlds import PYTHON_WORLDS, SHELL_WORLDS

from jataug.cli import main

ALL = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in ALL if block.language == "sh"]
PYTHON = [block for block in ALL if block.language == "python"]

ELSEWHERE = {
    ("docs/formats.md", "python"): "tests/generator/test_readers.py, without jataug",
    ("docs/precompute.md", "sh"): "tests/generator/test_precompute.py, in order",
    ("docs/recipes.md", "diff"): "tests/documentation/test_recipes.py, applied to a copy",
    ("docs/errors.md", "console"): "tests/documentation/test_errors.py, compared",
}
"""Blocks that another test runs."""

NO_CODE = {
    ("docs/api.md", "{eval-rst}"): "directives: tests/documentation/test_site.py builds the site",
    ("docs/index.md", "{toctree}"): "the contents, likewise",
    ("docs/architecture.md", "text"): "a drawing",
    ("docs/method.md", "text"): "pseudocode",
    ("docs/precompute.md", "text"): "what a command prints",
    ("docs/preprocessing.md", "text"): "a formula; test_preprocessing.py computes it",
    ("docs/streams.md", "text"): "pseudocode; tests/test_streams.py writes it out",
    ("docs/cli.md", "toml"): "a file; test_cli_page below reads it",
}
"""Blocks that are neither run nor parsed, and why."""


SHORTER = {"docs/train.md": ("epochs=10", "epochs=1")}
"""What is changed in a page's code, to make it short."""


def names(found: list[Block]) -> list[str]:
    return [block.name for block in found]


@pytest.mark.parametrize("block", ALL, ids=names(ALL))
def test_every_block_says_what_it_is(block: Block) -> None:
    assert block.language, f"{block.name}: indented; fence it, and say what it is"
    key = (block.page, block.language)
    run = block.language in ("python", "sh") or key in ELSEWHERE
    assert run != (key in NO_CODE), f"{block.name}: {block.language} is neither run nor excused"


def test_the_tables_name_blocks_that_are_there() -> None:
    held = {(block.page, block.language) for block in ALL}
    assert (ELSEWHERE.keys() | NO_CODE.keys()) <= held
    for where in ELSEWHERE.values():
        assert (ROOT / where.partition(",")[0]).is_file()


PAGES_OF_PYTHON = sorted({b.page for b in PYTHON if (b.page, "python") not in ELSEWHERE})


@pytest.mark.parametrize("page", PAGES_OF_PYTHON)
def test_python_runs(page: str, tmp_path: Path) -> None:
    """All blocks of a page, one after the other, in a process of its own."""
    PYTHON_WORLDS[page](tmp_path)
    script = tmp_path / "page.py"
    setup = tmp_path / "setup.py"
    parts = [setup.read_text()] if setup.exists() else []
    parts += [block.text for block in blocks(page) if block.language == "python"]
    script.write_text("\n".join(parts).replace(*SHORTER.get(page, ("", ""))), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", script.name],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    for told in re.findall(r"^# (\w.*: .*)$", "\n".join(parts), re.M):
        assert told in run.stdout


@pytest.mark.parametrize("page", sorted(SHELL_WORLDS))
def test_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All commands of a page, in order, in a folder that has the files they name."""
    world = SHELL_WORLDS[page]
    world.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = [words for b in blocks(page) if b.language == "sh" for words in commands(b.text)]
    skipped = tuple(world.not_run)
    lines = [" ".join(words) for words in found if words[0] == "jataug"]
    assert all(any(line.startswith(start) for line in lines) for start in skipped)
    ours = [
        words[1:]
        for words in found
        if words[0] == "jataug" and words[1] != ">" and not " ".join(words).startswith(skipped)
    ]
    assert ours
    for words in ours:
        done = CliRunner().invoke(main, [*words, *world.quick.get(words[0], ())])
        assert done.exit_code == 0, f"jataug {' '.join(words)}: {done.output}"


EVERY_COMMAND = [(block, words) for block in SHELL for words in commands(block.text)]


@pytest.mark.parametrize(
    ("block", "words"), EVERY_COMMAND, ids=[f"{b.name}-{w[0]}" for b, w in EVERY_COMMAND]
)
def test_commands_parse(block: Block, words: list[str]) -> None:
    """Programs, options and the files of the repository that a command names are there."""
    while "=" in words[0]:
        words = words[1:]
    assert words[0] in PARSERS, f"{block.name}: {words[0]}: say in PARSERS how to check it"
    PARSERS[words[0]](words[1:], block)


def parse_jataug(words: list[str], block: Block) -> None:
    if not words or words[0] == ">":  # completion: test_completion.py runs it
        assert "COMPLETE" in block.text
        return
    command = main.get_command(click.Context(main), words[0])
    assert command is not None, words
    context = click.Context(command, info_name=words[0])
    values, left, _ = command.make_parser(context).parse_args(words[1:])
    assert left == []
    for parameter in command.params:
        if isinstance(parameter.type, click.Choice | click.types.IntParamType):
            parameter.type_cast_value(context, values.get(parameter.name))


def parse_pip(words: list[str], block: Block) -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert words[0] == "install"
    for extra in re.findall(r"jataug\[([\w,]+)\]", " ".join(words)):
        assert set(extra.split(",")) <= project["optional-dependencies"].keys()


def parse_make(words: list[str], block: Block) -> None:
    folder = ROOT / "examples" / "cpp" if "examples/cpp" in block.text else ROOT
    makefile = (folder / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        assert re.search(rf"^{name}\s*[?:]?=" if is_variable else rf"^{name}:", makefile, re.M)


def parse_python(words: list[str], block: Block) -> None:
    if words[:2] == ["-m", "http.server"]:
        return
    source = (ROOT / words[0]).read_text(encoding="utf-8")
    setup = (ROOT / "examples" / "attack_onnx_setup.py").read_text(encoding="utf-8")
    for option in (word for word in words if word.startswith("--")):
        assert f'"{option}"' in source + setup, f"{words[0]} has no {option}"


def parse_node(words: list[str], block: Block) -> None:
    (folder,) = re.findall(rf"cd (examples/\w+)(?:(?!cd ).)*node {words[0]}", block.text, re.S)[:1]
    source = (ROOT / folder / words[0]).read_text(encoding="utf-8")
    for option in (word for word in words if word.startswith("--")):
        assert option.removeprefix("--") in source, f"{words[0]} has no {option}"


def parse_torchrun(words: list[str], block: Block) -> None:
    parse_jataug(words[words.index("jataug") + 1 :], block)


def parse_cd(words: list[str], block: Block) -> None:
    assert (ROOT / words[0]).is_dir()


def parse_cpp(words: list[str], block: Block) -> None:
    assert "attack" in (ROOT / "examples" / "cpp" / "Makefile").read_text(encoding="utf-8")


def nothing(words: list[str], block: Block) -> None:
    """A program of somebody else's."""


PARSERS: dict[str, Callable[[list[str], Block], None]] = {
    "jataug": parse_jataug,
    "pip": parse_pip,
    "make": parse_make,
    "python": parse_python,
    "python3": parse_python,
    "node": parse_node,
    "torchrun": parse_torchrun,
    "cd": parse_cd,
    "build/attack": parse_cpp,
    "npm": nothing,
    "pre-commit": nothing,
    "echo": nothing,
    ".": nothing,
}


@pytest.mark.parametrize(
    "line",
    [
        "jataug generate attack.onnx photos/ out/ --no-such-option",
        "jataug export model.onnx -o attack.onnx --preset claim-2",
        "jataug export model.onnx -o attack.onnx --steps many",
        "jataug attack model.onnx",
        "pip install 'jataug[gpus]'",
        "make demos",
        "python examples/attack_onnx_with_foolbox.py model.onnx --radii 8/255",
        "cd examples/rust",
    ],
)
def test_faults_are_found(line: str) -> None:
    (words,) = commands(line)
    block = Block("docs/none.md", 1, "sh", line)
    with pytest.raises((AssertionError, click.ClickException)):
        PARSERS[words[0]](words[1:], block)


def test_the_reader_sees_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a\n\n    indented\n\n```sh\njataug x \\\n    -y  # why\na && b\n```\n"
    monkeypatch.setattr("documentation.pages.text_of", lambda page: text)
    found = blocks("docs/none.md")
    assert [block.language for block in found] == ["", "sh"]
    assert commands(found[1].text) == [["jataug", "x", "-y"], ["a"], ["b"]]
    assert (found[0].line, found[1].line) == (3, 5)


def test_cli_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of defaults on docs/cli.md is one that generate takes, and it counts."""
    (table,) = (block for block in blocks("docs/cli.md") if block.language == "toml")
    SHELL_WORLDS["docs/cli.md"].make(tmp_path)
    assert (tmp_path / "defaults.toml").read_text() == table.text
    monkeypatch.chdir(tmp_path)
    ours = [w for b in blocks("docs/cli.md") if b.language == "sh" for w in commands(b.text)]
    (words,) = (words[1:] for words in ours if words[:2] == ["jataug", "generate"])
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert list((tmp_path / "out" / "images").glob("*.npz"))
    assert list((tmp_path / "out" / "flow").glob("*.npz"))
