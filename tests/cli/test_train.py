import json

import numpy as np
import onnx
import pytest
from PIL import Image

import jataug

pytest.importorskip("torch", reason="torch is not installed")

SMALL = (
    "--model", "trainer_nets:Grouped", "--epochs", "2", "--batch-size", "16", "--validation", "24",
    "--evaluation-images", "8", "--evaluation-steps", "2", "--lr", "0.05", "--pad", "0",
    "--flow", "0.5", "--pixel", "0.05", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 80)
    images = generator.integers(0, 140, (80, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label + 1 : 2 * label + 3] += 70
    path = tmp_path_factory.mktemp("train") / "bars.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


@pytest.fixture(scope="module")
def trained(run, source):
    path = source.parent / "run"
    result = run("train", source, "-o", path, *SMALL)
    assert result.exit_code == 0, result.output
    assert "6 steps" in result.output
    assert "held out, best of epoch" in result.output
    assert "train: step 6/6" in result.output
    return path


def test_the_loop_closes(run, source, trained, tmp_path) -> None:
    """train -> export -> generate -> verify -> train."""
    attack, model = tmp_path / "attack.onnx", tmp_path / "model.onnx"
    result = run("export", trained, "-o", attack, "--save-model", model)
    assert result.exit_code == 0, result.output
    assert "flow 0.5 px" in result.output
    assert "checked on onnxruntime" in result.output
    onnx.checker.check_model(onnx.load(model), full_check=True)
    made = tmp_path / "adversarial"
    assert run("generate", attack, source, made, "--format", "npz", "--save-flow").exit_code == 0
    assert run("verify", made, "--source", source, "--model", attack).exit_code == 0
    mixed = ("--mix", "attack=0.5", "--mix", f"dataset:{made}=0.5")
    result = run("train", source, "-o", tmp_path / "next", *SMALL, "--init", trained, *mixed)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "next" / "config.json").read_text())
    assert config["images_of_a_batch"] == {"attack": 8, f"dataset:{made}": 8}


def test_options_change_what_a_run_brings(run, trained, tmp_path) -> None:
    attack = tmp_path / "attack.onnx"
    words = ("--preset", "evaluation", "--steps", "4", "--pixel", "0.1", "--no-check")
    assert run("export", trained, "-o", attack, *words).exit_code == 0
    with jataug.Session.open(attack) as session:
        config = session.config
    assert (config.keep, config.steps) == ("best", 4)
    assert (config.flow.radius, config.pixel.radius) == (0.5, 0.1)


def test_run_again(run, source, trained) -> None:
    result = run("train", source, "-o", trained, *SMALL)
    assert result.exit_code == 0
    assert "nothing to do, all 6 steps are done" in result.output


@pytest.mark.filterwarnings("default")
def test_files_that_are_not_read_are_counted(run, tmp_path) -> None:
    for number in range(48):
        place = tmp_path / "photos" / str(number % 3)
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(place / f"{number}.png")
    (tmp_path / "photos" / "1" / "a.heic").write_bytes(b"")
    result = run("train", tmp_path / "photos", "-o", tmp_path / "run", *SMALL)
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.output.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == 1, result.output
    assert "photos: " in warnings[0]
    assert ".heic" in warnings[0]


def test_one_line_and_two_for_wrong_input(run, source, trained, tmp_path) -> None:
    new = tmp_path / "new"
    for words, said in [
        (("train", source, "-o", trained, *SMALL, "--lr", "0.1"), "lr 0.05 there, 0.1 asked"),
        (("train", source, "-o", new, *SMALL, "--mix", "cleen=1"), "expected one of clean"),
        (("train", source, "-o", new, *SMALL, "--max-flow", "2"), "--max-flow"),
        (("train", source, "-o", new, *SMALL, "--model-option", "width"), "NAME=VALUE"),
        (("train", source, "-o", new, *SMALL, "--milestones", "a"), "expected epochs"),
        (("train", source, "-o", new, *SMALL, "--model", "vgg"), "package.module:factory"),
        (("train", tmp_path / "no.npz", "-o", new, *SMALL), "got nothing there"),
        (
            ("export", source.parent, "-o", new),
            "expected MODEL to be a classifier or a training run",
        ),
    ]:
        result = run(*words)
        assert result.exit_code == 2, result.output
        assert said in result.output
        assert "Traceback" not in result.output
    assert not new.exists()


def test_a_loss_that_is_not_finite_is_a_failed_check(run, source, tmp_path) -> None:
    words = ("--model", "trainer_nets:Exploding", "--epochs", "5")
    result = run("train", source, "-o", tmp_path / "run", *SMALL, *words)
    assert result.exit_code == 1
    assert "expected a finite loss, got" in result.output
    assert "step 3 of epoch 4" in result.output


def test_a_configuration_file(run, source, tmp_path) -> None:
    file = tmp_path / "train.toml"
    file.write_text('[train]\nepochs = 1\nmilestones = [1, 2]\nmix = ["clean=0.5", "attack=0.5"]\n')
    place = SMALL.index("--epochs")
    small = SMALL[:place] + SMALL[place + 2 :]
    result = run("train", source, "-o", tmp_path / "run", *small, "--config", file)
    assert result.exit_code == 0, result.output
    about = json.loads((tmp_path / "run" / "config.json").read_text())
    assert about["config"]["epochs"] == 1
    assert about["config"]["milestones"] == [1, 2]
    assert about["images_of_a_batch"] == {"clean": 8, "attack": 8}
