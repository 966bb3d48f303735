"""A source that is learned in seconds: three classes of 8x8 images, and the configuration to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jataug
from jataug.trainer import TrainConfig, train


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright bars at a place that is the class, in noise: (count, 8, 8), uint8, and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    images = generator.integers(0, 140, (count, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label + 1 : 2 * label + 3] += 70
    return images.astype(np.uint8), labels


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "bars.npz"
    images, labels = drawn(120, seed=0)
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture
def options(source: Path, tmp_path: Path) -> dict[str, Any]:
    """Two epochs of six batches of 16, joint, on the CPU."""
    return {
        "source": source,
        "output": tmp_path / "run",
        "model": "trainer_nets:Normed",
        "attack": jataug.AttackConfig(
            flow=jataug.FlowBudget(0.5), pixel=jataug.PixelBudget(0.05), steps=1
        ),
        "epochs": 2,
        "batch_size": 16,
        "validation": 24,
        "evaluation_images": 8,
        "evaluation_steps": 2,
        "pad": 1,
        "device": "cpu",
    }


@pytest.fixture
def config(options: dict[str, Any]) -> TrainConfig:
    return TrainConfig(**options)


@pytest.fixture(scope="session")
def trained(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, to export."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train(
        TrainConfig(
            source=source, output=run, model="trainer_nets:Grouped", mode="natural", epochs=3,
            batch_size=16, validation=24, evaluation_images=0, pad=0, device="cpu", lr=0.05,
            label_smoothing=0.5, milestones=(60, 90),
            attack=jataug.AttackConfig(
                flow=jataug.FlowBudget(0.5), pixel=jataug.PixelBudget(0.05), steps=1
            ),
        )
    )  # fmt: skip
    return run


@pytest.fixture(scope="session")
def artifact(trained: Path) -> Path:
    from jataug.export import export_attack
    from jataug.trainer import load_run

    run, path = load_run(trained), trained.parent / "attack.onnx"
    export_attack(run.module, run.config.attack, path, example=run.example, check=False)
    return path


@pytest.fixture(scope="session")
def dataset(artifact: Path, source: Path) -> Path:
    folder = artifact.parent / "adversarial"
    jataug.generate(artifact, source, folder, format="npz", device="cpu", batch_size=16)
    return folder


@pytest.fixture
def weights() -> Callable[[Path], dict[str, torch.Tensor]]:
    from jataug.trainer.run_folder.checkpoint import read_checkpoint

    return lambda run: read_checkpoint(run / "last.safetensors")[0]
