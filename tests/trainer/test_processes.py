"""Two processes on the CPU (gloo), as torchrun starts them, against one with the same batches.

The network has group norm: torch synchronises batch statistics over processes on CUDA alone, and
without that two halves of a batch have other statistics than the whole.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jataug import AttackConfig, FlowBudget, PixelBudget
from jataug.errors import DataError
from jataug.trainer import Part, TrainConfig, train
from jataug.trainer.run_folder.checkpoint import read_checkpoint

TESTS = Path(__file__).resolve().parent.parent
PATHS = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
# As many threads as here, or the run is told that it goes on elsewhere.
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.filterwarnings("ignore:.*its pixel budget is:UserWarning")  # the set is an linf one
def test_two_processes_are_one(options, dataset, tmp_path) -> None:
    """Also where a part of the mixture is a single image, which one of the two does without."""
    mixture = (
        Part("attack", 14 / 16), Part("dataset", 1 / 16, str(dataset)), Part("clean", 1 / 16)
    )  # fmt: skip
    options |= {
        "model": "trainer_nets:Grouped", "mixture": mixture, "ema": 0.9, "clip": 1.0, "lr": 0.05,
        # Without signs: half a batch rounds otherwise than the whole, and a sign may then turn.
        "attack": AttackConfig(flow=FlowBudget(0.5), pixel=PixelBudget(0.4, "l2"), steps=1),
    }  # fmt: skip
    one = train(TrainConfig(**{**options, "output": tmp_path / "one"})).output
    config = TrainConfig(**options)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_dict()))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
        "--nproc-per-node", "2",
        str(TESTS / "trainer_process.py"), str(file),
    ]  # fmt: skip
    # The name of a machine may resolve slowly, or not at all.
    environment = {**ENVIRONMENT, "GLOO_SOCKET_IFNAME": "lo"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr

    two = Path(config.output)
    for single, double in zip(lines(one), lines(two), strict=True):
        assert single["loss"] == pytest.approx(double["loss"], abs=1e-5)
        assert single["accuracy"] == double["accuracy"]
        assert single["robust_accuracy"] == double["robust_accuracy"]
    alone, _ = read_checkpoint(one / "last.safetensors")
    joined, state = read_checkpoint(two / "last.safetensors")
    assert state["processes"] == 2
    for name, value in alone.items():
        if not name.startswith("random/"):
            assert torch.allclose(joined[name], value, atol=1e-5), name

    with pytest.raises(DataError, match="expected 2 processes, as the run began with, got 1"):
        train(config)


@pytest.mark.heavy  # test_train and test_adversary hold what reaches the network, and how
@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_trains_alike(options, tmp_path) -> None:
    """In a process of its own: torch's compiler warns, and here warnings are errors."""
    options |= {"model": "trainer_nets:Grouped", "epochs": 1}
    plain = train(TrainConfig(**{**options, "output": tmp_path / "plain"}))
    config = TrainConfig(**{**options, "compile": True})
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.to_dict()))
    command = [sys.executable, str(TESTS / "trainer_process.py"), str(file)]
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert lines(Path(config.output))[0]["loss"] == pytest.approx(plain.loss, rel=1e-3)


def test_a_batch_must_divide(options, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(DataError, match="expected a multiple of the 3 processes, got 16"):
        train(TrainConfig(**options))
