"""What verify says of budgets and of predictions that differ."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

import jataug

DEMO = Path(jataug.__file__).parent / "demo"
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "index.schema.json"
OPTIONS = ("--mean", "0.3", "--std", "0.35", "--steps", "1", "--no-check")


@pytest.fixture(scope="module")
def normalized(run, tmp_path_factory):
    """A data set whose attack holds a mean and a std."""
    root = tmp_path_factory.mktemp("normalized")
    done = run("export", DEMO / "classifier.onnx", "-o", root / "a.onnx", *OPTIONS)
    assert done.exit_code == 0, done.output
    run("generate", root / "a.onnx", DEMO / "images.npz", root / "out", "--limit", "16")
    return root / "out"


def without_record(folder, tmp_path):
    """The data set as it was before the preprocessing was recorded."""
    import shutil

    shutil.copytree(folder, tmp_path / "old")
    index = json.loads((folder / "index.json").read_text("utf-8"))
    del index["model"]
    (tmp_path / "old" / "index.json").write_text(json.dumps(index), "utf-8")
    return tmp_path / "old"


def test_the_bare_model_sees_images_as_the_data_set_records(run, normalized):
    done = run("verify", normalized, "--model", DEMO / "classifier.onnx")
    assert done.exit_code == 0, done.output
    assert "--mean 0.3 --std 0.35" in done.output
    assert "0 predictions differ" in done.output
    assert "preprocessing:" not in done.output


def test_options_that_are_typed_come_first(run, normalized):
    done = run("verify", normalized, "--model", DEMO / "classifier.onnx", "--mean", "0")
    assert "0 predictions differ" not in done.output
    (line,) = (x for x in done.output.splitlines() if x.startswith("preprocessing: "))
    assert "measured with no model options" in line
    assert "the data set was made with --mean 0.3 --std 0.35" in line
    assert "preprocessing from the data set" not in done.output


def test_without_a_record_the_line_says_what_to_give(run, normalized, tmp_path):
    old = without_record(normalized, tmp_path)
    done = run("verify", old, "--model", DEMO / "classifier.onnx")
    assert done.exit_code == 0, done.output
    assert "does not record the preprocessing" in done.output
    assert all(option in done.output for option in ("--mean", "--std", "--scale"))
    right = run("verify", old, "--model", DEMO / "classifier.onnx", *OPTIONS[:4])
    assert "0 predictions differ" in right.output
    assert "preprocessing:" not in right.output


def test_the_index_keeps_to_its_schema_and_the_card_has_the_options(normalized):
    index = json.loads((normalized / "index.json").read_text("utf-8"))
    jsonschema.validate(index, json.loads(SCHEMA.read_text("utf-8")))
    assert index["model"]["preprocessing"]["mean"] == [0.3]
    card = (normalized / "README.md").read_text("utf-8")
    assert "    --mean 0.3 \\\n    --std 0.35\n" in card
    assert "not known here" not in card


@pytest.fixture(scope="module")
def levels(run, artifact, tmp_path_factory):
    """A data set with its flows, of images with room on both sides."""
    root = tmp_path_factory.mktemp("levels")
    np.savez(root / "flat.npz", images=np.full((4, 28, 28), 100, np.uint8), labels=np.arange(4))
    done = run("generate", artifact, root / "flat.npz", root / "out", "--save-flow")
    assert done.exit_code == 0, done.output
    return root / "out"


def test_budgets_are_told_in_the_units_that_were_given(run, levels):
    lines = run("verify", levels).output.splitlines()
    assert "budget: kept by every image" in lines
    assert "  pixels: largest change 8/255, allowed 8/255" in lines
    assert any(line.startswith("  flow: longest vector 0.") for line in lines)
    assert all(line.endswith(" px, allowed 0.3 px") for line in lines if "flow:" in line)


def test_a_budget_that_is_exceeded_is_called_so(run, levels, tmp_path):
    import hashlib
    import shutil

    root = tmp_path / "out"
    shutil.copytree(levels, root)
    shutil.copy(levels.parent / "flat.npz", tmp_path)
    (records,) = (root / "records").glob("*.jsonl")
    rows = [json.loads(line) for line in records.read_text("utf-8").splitlines()]
    path = root / rows[0]["file"]
    Image.fromarray(np.full((28, 28), 111, np.uint8)).save(path)
    rows[0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    records.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = run("verify", root)
    assert done.exit_code == 1
    assert "budget: exceeded\n  pixels: largest change 11/255, allowed 8/255\n" in done.output


def test_without_flows_the_line_says_what_it_cannot_tell(run, artifact, images, tmp_path):
    run("generate", artifact, images, tmp_path / "out", "--limit", "8")
    said = run("verify", tmp_path / "out").output
    assert "budget: kept by every image" in said
    assert "--save-flow" in said
    assert "  pixels: largest change that no allowed flow explains " in said
    assert "flow: longest" not in said


def test_an_l2_budget_and_its_rounding(run, images, tmp_path):
    words = ("--pixel", "0.5", "--pixel-norm", "l2", "--steps", "1", "--no-check")
    run("export", DEMO / "classifier.onnx", "-o", tmp_path / "a.onnx", *words)
    run("generate", tmp_path / "a.onnx", images, tmp_path / "out", "--limit", "8", "--save-flow")
    said = run("verify", tmp_path / "out").output
    assert ", allowed 0.5, with the rounding to 8 bits 0.5549 (l2 norm)\n" in said


def test_the_level_that_a_radius_reaches_is_said(run, images, tmp_path):
    words = ("--pixel", "0.0049", "--flow", "0", "--steps", "1", "--no-check")
    run("export", DEMO / "classifier.onnx", "-o", tmp_path / "a.onnx", *words)
    given = ("generate", tmp_path / "a.onnx", images, tmp_path / "out", "--limit", "8")
    said = "a pixel radius of 1.2495/255 reaches 1/255 in 8-bit images"
    assert said in run(*given, "--dry-run").output
    assert said in run(*given).output
    done = run("verify", tmp_path / "out")
    assert f"  levels: {said}" in done.output
    assert "largest change 0.003922, allowed 0.0049" in done.output
