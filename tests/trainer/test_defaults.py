"""What a run chooses where the user says nothing, and what a run that is resumed keeps."""

import json

import numpy as np
import pytest

from jataug.trainer import TrainConfig, train
from jataug.trainer.defaults import choose, unsaid


def config_of(run) -> dict:
    return json.loads((run / "config.json").read_text())["config"]


@pytest.mark.parametrize(
    ("count", "shape", "model", "epochs", "batch_size", "validation"),
    [
        (300, (3, 32, 32), "small-cnn", 50, 16, 30),
        (10, (1, 8, 8), "small-cnn", 50, 9, 1),
        (3_000, (3, 32, 32), "resnet-18", 100, 32, 300),
        (300, (3, 224, 300), "resnet-18-imagenet", 50, 16, 30),
        (60_000, (1, 28, 28), "wrn-28-10", 200, 128, 1000),
    ],
)
def test_choices_fit_the_source(count, shape, model, epochs, batch_size, validation) -> None:
    found = choose(TrainConfig(source="s", output="o"), count, shape)
    assert unsaid(found) == []
    assert (found.model, found.epochs) == (model, epochs)
    assert (found.batch_size, found.validation) == (batch_size, validation)


def test_what_is_said_stays() -> None:
    said = {"model": "wrn-10-1", "epochs": 3, "batch_size": 7, "validation": 0}
    said |= {"label_smoothing": 0.1, "milestones": (1,)}
    config = TrainConfig(source="s", output="o", **said)
    assert choose(config, 300, (3, 32, 32)) == config


@pytest.mark.parametrize(
    ("mode", "amount", "line"),
    [
        ("natural", 0.0, "- Label smoothing: none."),
        ("joint", 0.5, "- Label smoothing: 0.5 (convention: authors)."),
    ],
)
def test_smoothing_depends_on_the_mode(mode, amount, line, options) -> None:
    run = train(TrainConfig(**{**options, "mode": mode, "epochs": 0})).output
    assert config_of(run)["label_smoothing"] == amount
    assert line in (run / "README.md").read_text()


def test_choices_are_told_kept_and_resumed(tmp_path) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 40)
    np.savez(tmp_path / "few.npz", images=generator.integers(0, 256, (40, 8, 8), np.uint8),
             labels=labels)  # fmt: skip
    config = TrainConfig(source=tmp_path / "few.npz", output=tmp_path / "run", mode="natural",
                         device="cpu", epochs=1)  # fmt: skip
    lines: list[str] = []
    train(config, say=lines.append)
    assert lines[-1] == (
        "chosen for this source: --model small-cnn --batch-size 16 --validation 4 "
        "--label-smoothing 0.0 --milestones 0.3,0.45"
    )
    kept = config_of(tmp_path / "run")
    assert (kept["model"], kept["batch_size"], kept["validation"]) == ("small-cnn", 16, 4)
    assert train(config.replace(model="small-cnn", validation=4)).trained == 0


def test_a_run_of_0_1_keeps_what_it_began_with(options) -> None:
    """There the default was milestones at epochs 60 and 90, and smoothing for natural runs too."""
    options |= {"mode": "natural", "epochs": 1}
    run = train(TrainConfig(**options, milestones=(60, 90), label_smoothing=0.5)).output
    about = json.loads((run / "config.json").read_text())
    about["config"]["smoothing"] = about["config"].pop("convention")  # its name there
    (run / "config.json").write_text(json.dumps(about))
    report = train(TrainConfig(**options))
    assert report.trained == 0
    assert (config_of(run)["milestones"], config_of(run)["label_smoothing"]) == ([60, 90], 0.5)
