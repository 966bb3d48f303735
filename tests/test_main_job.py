"""The main job on real material: export, generate, verify, as a user types it."""

import json

import nets
import pytest
import torch
from click.testing import CliRunner

from jataug import AttackConfig
from jataug.cli import main
from jataug.export import export_attack


def run(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def index_of(folder):
    return json.loads((folder / "index.json").read_text())


@pytest.mark.heavy
def test_efficientnet_on_photographs_at_their_own_sizes(efficientnet_lite0, photos, tmp_path):
    attack, out = tmp_path / "attack.onnx", tmp_path / "out"
    model = ("--mean", "127", "--std", "128", "--scale", "255")
    budgets = ("--preset", "evaluation", "--flow", "0.3", "--pixel", "8/255", "--steps", "10")
    run("export", efficientnet_lite0.path, "-o", attack, *model, *budgets)
    options = ("--resize", "256", "--crop", "224", "--labels", "predicted", "--save-flow")
    run("generate", attack, photos, out, *options, "--batch-size", "8", "--device", "cpu")
    counts = index_of(out)["counts"]
    assert counts["images"] >= 12
    assert counts["adversarial_correct"] <= 0.2 * counts["images"]
    told = run("verify", out, "--model", efficientnet_lite0.path, *model)
    assert "budget: kept by every image\n" in told
    assert "0 predictions differ" in told


def test_the_test_set_of_fashion_mnist(demo_classifier, fashion_mnist, tmp_path):
    attack, out = tmp_path / "attack.onnx", tmp_path / "out"
    run("export", demo_classifier.path, "-o", attack, "--preset", "evaluation", "--steps", "5")
    source = fashion_mnist / "t10k-images-idx3-ubyte.gz"
    run("generate", attack, source, out, "--limit", "256", "--format", "npz", "--device", "cpu")
    index = index_of(out)
    assert index["counts"]["images"] == 256
    assert index["clean_accuracy"] > 0.88
    assert index["adversarial_accuracy"] < 0.45
    assert "0 problems" in run("verify", out)


def test_class_folders_of_traffic_lights(traffic_lights, tmp_path):
    model = nets.tiny(seed=3, classes=3)
    example = torch.rand(2, 3, 48, 48)
    export_attack(model, AttackConfig(steps=2), tmp_path / "attack.onnx", example=example)
    options = ("--resize", "48", "--crop", "48", "--save-flow", "--device", "cpu")
    run("generate", tmp_path / "attack.onnx", traffic_lights, tmp_path / "out", *options)
    index = index_of(tmp_path / "out")
    assert index["counts"]["images"] == 297
    assert index["class_names"] == {"0": "green", "1": "red", "2": "yellow"}
    stored = {path.parent.name for path in (tmp_path / "out" / "images").rglob("*.png")}
    assert stored == {"green", "red", "yellow"}
    told = run("verify", tmp_path / "out", "--model", tmp_path / "attack.onnx")
    assert "budget: kept by every image\n" in told
