"""python every_kill.py PLACE SOURCE: kills of a training run; see tests/kills.py."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kills import main

import jataug
from jataug.trainer import TrainConfig, train
from jataug.trainer.run_folder.checkpoint import read_checkpoint


def make(source: Path, out: Path) -> None:
    """Train for two epochs of two steps, with every file that there can be."""
    attack = jataug.AttackConfig(
        flow=jataug.FlowBudget(0.5), pixel=jataug.PixelBudget(0.05), steps=1
    )
    train(
        TrainConfig(
            source=source, output=out, model="trainer_nets:Normed", attack=attack, epochs=2,
            batch_size=48, validation=24, evaluation_images=8, evaluation_steps=1, pad=1, ema=0.9,
            checkpoint_steps=1, device="cpu",
        )
    )  # fmt: skip


def content(root: Path) -> dict[str, Any]:
    """Return what does not depend on the time of a run's files, by name."""
    found: dict[str, Any] = {str(p.relative_to(root)): p.stat().st_size > 0 for p in root.iterdir()}
    found["best.safetensors"] = (root / "best.safetensors").read_bytes()
    tensors, _ = read_checkpoint(root / "last.safetensors")
    found["last.safetensors"] = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    lines = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    found["metrics.jsonl"] = [{**line, "train_seconds": 0} for line in lines]
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(partial(make, Path(sys.argv[2])), content, Path(sys.argv[1]))
