"""A training run in a process of its own: python trainer_process.py CONFIG.json [die at step]."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from jataug.trainer import TrainConfig, train
from jataug.trainer.processes import joined
from jataug.trainer.run_folder import checkpoint as saving


def main() -> None:
    config = TrainConfig.from_dict(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    last = sys.argv[2] if len(sys.argv) > 2 else ""
    if last.startswith("saving-"):
        _die_in_save(int(last.removeprefix("saving-")))
        last = ""

    def progress(now: object) -> None:
        if last and now.step == int(last):
            os.kill(os.getpid(), signal.SIGKILL)

    train(config, progress=progress)
    if "RANK" in os.environ:
        _compare_buffers(config)


def _die_in_save(number: int) -> None:
    """Die in a save of this number, after half of the file is written."""
    real, count = saving.save_file, 0

    def save(tensors: object, path: object, metadata: object) -> None:
        nonlocal count
        real(tensors, path, metadata=metadata)
        count += 1
        if count == number:
            os.truncate(path, Path(path).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    saving.save_file = save


def _compare_buffers(config: TrainConfig) -> None:
    with joined(config) as processes:
        norm = nn.BatchNorm2d(2)
        norm.running_mean.fill_(processes.rank)
        processes.average_buffers(norm)
        expected = (processes.size - 1) / 2
        if not torch.equal(norm.running_mean, torch.full((2,), expected)):
            sys.exit(f"buffers: expected {expected}, got {norm.running_mean}")


if __name__ == "__main__":
    main()
