"""The example closes the loop, and goes on where it was stopped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import jataug
from jataug.trainer import load_run

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "close_the_loop.py"


@pytest.mark.heavy  # tests/cli/test_train.py closes the loop in fewer processes
def test_rounds_feed_each_other(tmp_path) -> None:
    source = Path(jataug.__file__).parent / "demo" / "images.npz"
    command = [
        sys.executable, str(SCRIPT), "--data", str(source), "--output", str(tmp_path / "loop"),
        "--rounds", "2", "--epochs", "1", "--images", "200",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert first.returncode == 0, first.stderr
    assert "200 images made, 200 in all" in first.stdout
    assert "round 1: held out" in first.stdout
    last = load_run(tmp_path / "loop" / "run-1").config
    assert last.init == str(tmp_path / "loop" / "run-0")
    names = [part.name for part in last.mixture]
    assert names == ["attack", f"dataset:{tmp_path / 'loop' / 'adversarial-0'}", "clean"]
    stored = jataug.open_dataset(tmp_path / "loop" / "adversarial-0")
    assert len(stored) == 200
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "nothing to do, 200 images are there already" in again.stdout
    assert first.stdout.splitlines()[-1] == again.stdout.splitlines()[-1]
