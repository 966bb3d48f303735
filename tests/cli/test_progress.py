"""What a person sees on a terminal while a command works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import jataug

DEMO = Path(jataug.__file__).parent / "demo"
CODE = "from jataug.cli import main; main()"


def on_a_terminal(columns, *words):
    """Run `jataug` with stderr on a terminal; return what it wrote there."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    command = [sys.executable, "-c", CODE, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        try:
            while data := os.read(ours, 4096):
                written += data
        except OSError:  # what Linux says when the other end is closed
            pass
        os.close(ours)
    assert process.returncode == 0, written
    return written.decode("utf-8")


@pytest.mark.parametrize("columns", [100, 0], ids=["wide", "of no known width"])
def test_an_evaluation_draws_a_bar_an_attack(tmp_path, columns):
    written = on_a_terminal(
        columns, "evaluate", DEMO / "classifier.onnx", DEMO / "images.npz", "-o", tmp_path / "out",
        "--limit", 4, "--attacks", "fgsm,noise", "--no-curves", "--no-sanity", "--device", "cpu",
    )  # fmt: skip
    for attack in ("clean", "fgsm", "noise"):
        for done in ("0/4", "4/4"):
            shown = [part for part in written.split("\r") if done in part]
            assert any(f"classifier {attack}: " in part for part in shown), (attack, done)
