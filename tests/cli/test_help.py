"""Help at 80 columns with examples, and completion in a shell that asks for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jataug.cli import main

CONTEXT = click.Context(main)
NAMES = main.list_commands(CONTEXT)


def said(*words: str) -> str:
    done = CliRunner().invoke(main, [*words, "--help"], terminal_width=80)
    assert done.exit_code == 0
    return done.output


def test_the_group_is_readable() -> None:
    text = said()
    assert max(map(len, text.splitlines())) <= 80
    for name in NAMES:
        assert f"\n  {name} " in text
    assert "Exit codes" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_command_is_readable(name: str) -> None:
    text = said(name)
    assert max(map(len, text.splitlines())) <= 80
    assert f"\n  jataug {name} " in text, "an example"


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_parse(name: str) -> None:
    text = said(name).replace("\\\n", " ")
    lines = [line.split() for line in text.splitlines() if line.startswith(f"  jataug {name} ")]
    assert lines
    for words in lines:
        command = main.get_command(CONTEXT, words[1])
        assert command is not None
        context = click.Context(command, info_name=name)
        _, left, _ = command.make_parser(context).parse_args(words[2:])
        assert left == []


COMPLETE = """
eval "$(_JATAUG_COMPLETE=bash_source jataug)"
complete -p jataug > /dev/null || exit 3
try() {
    COMP_WORDS=(jataug "$@")
    COMP_CWORD=$#
    COMPREPLY=()
    _jataug_completion jataug 2> /dev/null
    echo "${COMPREPLY[*]}"
}
try gen
try generate --sh
try export model.onnx --preset ""
try generate attack.onnx --format par
"""


def test_completion_in_bash(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "--norc", "-c", COMPLETE],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "generate",
        "--shard-size --shard",
        "claim-1 claim-8 evaluation",
        "parquet",
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    monkeypatch.setattr(kind, "_check_version", staticmethod(lambda: None), raising=False)
    text = kind(main, {}, "jataug", "_JATAUG_COMPLETE").source()
    assert f"_JATAUG_COMPLETE={shell}_complete" in text
