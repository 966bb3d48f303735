"""Runs that are killed, with a signal that no process can catch, and go on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kills import killed_before_every_change

from jataug.trainer import TrainConfig, train
from jataug.trainer.checkpoint import read_checkpoint

TESTS = Path(__file__).resolve().parent.parent
PATHS = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))


def killed(config: TrainConfig, when: str, tmp_path: Path) -> int:
    """Train in another process until it kills itself; its exit code."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_dict()))
    threads = str(torch.get_num_threads())
    run = subprocess.run(
        [sys.executable, str(TESTS / "trainer_process.py"), str(file), when],
        env={**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in run.stderr, run.stderr
    return run.returncode


@pytest.mark.parametrize("when", ["1", "9", "saving-5"])
def test_a_killed_run_ends_with_the_same_weights(when, options, tmp_path) -> None:
    """Batch norm, dropout, momentum, average, metrics: all of it goes on as if nothing was."""
    options |= {"ema": 0.9, "checkpoint_steps": 4, "epochs": 3}
    whole = train(TrainConfig(**{**options, "output": tmp_path / "whole"}))
    config = TrainConfig(**options)
    assert killed(config, when, tmp_path) == -signal.SIGKILL
    _, state = read_checkpoint(options["output"] / "last.safetensors")
    assert (state["epoch"], state["step"]) == {"1": (0, 0), "9": (1, 0), "saving-5": (1, 0)}[when]
    report = train(config)
    assert 0 < report.trained <= report.steps == whole.steps == 18
    assert (report.trained < report.steps) == (when != "1")

    ends = [read_checkpoint(path / "last.safetensors") for path in (whole.output, report.output)]
    (tensors, place), (again, same) = ends
    assert tensors.keys() == again.keys()
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    files = [(r.output / "best.safetensors").read_bytes() for r in (whole, report)]
    assert files[0] == files[1]
    assert {**place, "metrics": 0} == {**same, "metrics": 0}
    lines = [
        [json.loads(line) for line in (r.output / "metrics.jsonl").read_text().splitlines()]
        for r in (whole, report)
    ]
    for line in (*lines[0], *lines[1]):
        del line["train_seconds"]
    assert lines[0] == lines[1]


def test_what_was_written_after_the_checkpoint_is_cut_off(options) -> None:
    config = TrainConfig(**options)
    run = train(config).output
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    saved = (run / "last.safetensors").read_bytes()
    (run / "metrics.jsonl").write_bytes(b"".join([*lines, b'{"epoch": 2, "lo']))
    train(config)
    assert (run / "metrics.jsonl").read_bytes() == b"".join(lines)
    assert (run / "last.safetensors").read_bytes() == saved


@pytest.mark.skipif(
    sys.platform != "linux", reason="needs fork: Windows has none, torch on macOS refuses it"
)
def test_killed_before_every_change_of_a_file(source, tmp_path) -> None:
    """What the run is, two epochs of two checkpoints, the metrics, the best weights."""
    program = Path(__file__).with_name("every_kill.py")
    assert killed_before_every_change(program, tmp_path / "killed", source) > 20
