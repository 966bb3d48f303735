"""Runs that are killed, with a signal that no process can catch, and go on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from kills import killed_before_every_change

from jataug.errors import DataError
from jataug.trainer import Part, TrainConfig, train
from jataug.trainer.run_folder.checkpoint import read_checkpoint

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


@pytest.mark.parametrize("kind", ["dataset", "artifact"])
def test_a_file_of_the_mixture_that_has_changed_is_refused(
    kind, options, artifact, dataset, tmp_path
) -> None:
    """Another one under the same name would train the rest of the run on other images."""
    given = tmp_path / "given"
    if kind == "dataset":
        shutil.copytree(dataset, given)
    else:
        shutil.copy(artifact, given)
    mixture = (Part("clean", 0.5), Part(kind, 0.5, str(given)))
    config = TrainConfig(**{**options, "mixture": mixture, "epochs": 1})
    train(config)
    train(config)
    changed = given / "index.json" if kind == "dataset" else given
    changed.write_bytes(changed.read_bytes() + b"\n")
    with pytest.raises(DataError, match=f"{kind}:.*given has changed; choose another output"):
        train(config)


def test_changed_code_of_the_model_is_told(options, tmp_path, monkeypatch) -> None:
    """What it computes may be something else, though its weights have the same names."""
    code = (TESTS / "trainer_nets.py").read_text("utf-8")
    (tmp_path / "own_nets.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    config = TrainConfig(**{**options, "model": "own_nets:Normed", "epochs": 1})
    train(config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(config)
    (tmp_path / "own_nets.py").write_text(f"{code}\n")
    with pytest.warns(UserWarning, match="another environment: code of the model"):
        train(config)


@pytest.mark.skipif(
    sys.platform != "linux", reason="needs fork: Windows has none, torch on macOS refuses it"
)
def test_killed_before_every_change_of_a_file(source, tmp_path) -> None:
    """What the run is, two epochs of two checkpoints, the metrics, the best weights."""
    program = Path(__file__).with_name("every_kill.py")
    assert killed_before_every_change(program, tmp_path / "killed", source) > 20
