"""Every command once, as a user types it."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import start
from PIL import Image

import jataug

DEMO = Path(jataug.__file__).parent / "demo"


def test_generate_verify_inspect(run, artifact, images, tmp_path):
    out = tmp_path / "a data set"
    command = ("generate", artifact, images, out, "--limit", "40", "--batch-size", "16")
    made = run(*command, "--save-flow", "--device", "cpu")
    assert made.exit_code == 0, made.output
    assert "40 images made" in made.output
    assert "accuracy: clean 0." in made.output
    again = run(*command, "--save-flow", "--device", "cpu")
    assert again.exit_code == 0
    assert "nothing to do" in again.output
    checked = run("verify", out, "--model", artifact)
    assert checked.exit_code == 0, checked.output
    assert "budget: kept by every image\n" in checked.output
    assert "0 predictions differ" in checked.output
    told = run("inspect", out)
    assert "40, format folder" in told.output


def test_verify_measures_with_a_plain_classifier(run, artifact, images, tmp_path):
    run("generate", artifact, images, tmp_path / "out", "--limit", "16", "--device", "cpu")
    checked = run("verify", tmp_path / "out", "--model", DEMO / "classifier.onnx")
    assert checked.exit_code == 0, checked.output
    assert "0 predictions differ" in checked.output
    other = run("verify", tmp_path / "out", "--model", DEMO / "classifier.onnx", "--scale", "-1")
    assert "0 predictions differ" not in other.output


def test_verify_fails_on_a_flipped_byte(run, artifact, images, tmp_path):
    run("generate", artifact, images, tmp_path / "out", "--limit", "16", "--format", "npz")
    (shard,) = (tmp_path / "out" / "images").iterdir()
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    checked = run("verify", tmp_path / "out")
    assert checked.exit_code == 1
    assert shard.name in checked.output


def test_without_the_source_the_budget_is_not_checked(run, artifact, images, tmp_path):
    copy = tmp_path / "images.npz"
    copy.write_bytes(images.read_bytes())
    run("generate", artifact, copy, tmp_path / "out", "--limit", "16")
    copy.unlink()
    checked = run("verify", tmp_path / "out")
    assert checked.exit_code == 0
    assert "budget: not checked" in checked.output


def test_progress_for_machines(artifact, images, tmp_path):
    words = ("--limit", "40", "--batch-size", "16", "--log-json", "--device", "cpu")
    process = start("generate", artifact, images, tmp_path / "out", *words)
    said, progress = process.communicate(timeout=120)
    assert process.returncode == 0, progress
    events = [json.loads(line) for line in progress.splitlines()]
    assert [event["done"] for event in events] == [0, 16, 32, 40]
    done = json.loads(said)
    assert (done["event"], done["images"], done["complete"]) == ("done", 40, True)


def test_preview(run, artifact, images, tmp_path):
    result = run("preview", artifact, images, "-o", tmp_path / "grid.png", "--count", "2")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.width > 400


def test_inspect(run, artifact):
    told = run("inspect", artifact)
    assert told.exit_code == 0
    assert "at most 1" in told.output
    assert "checked        onnxruntime" in told.output
    told = run("inspect", DEMO / "classifier.onnx")
    assert "can be attacked  yes" in told.output


def test_differentiate(run, tmp_path):
    result = run("differentiate", DEMO / "classifier.onnx", "-o", tmp_path / "g.onnx")
    assert result.exit_code == 0, result.output
    model = onnx.load(tmp_path / "g.onnx")
    assert {value.name for value in model.graph.input} == {"image", "grad_logits"}
    assert {value.name for value in model.graph.output} == {"logits", "grad_image"}
    assert "rules      Conv " in result.output
    assert "from differences, on onnxruntime" in result.output


def test_a_gradient_that_is_wrong_is_not_written(run, tmp_path, monkeypatch):
    from jataug.export.rules import table

    right = table._RULES["", "Conv"][0]
    wrong = replace(right, pullback=lambda *a, **k: right.pullback(*a, **k) * 1.1)
    monkeypatch.setitem(table._RULES["", "Conv"], 0, wrong)
    given = ("differentiate", DEMO / "classifier.onnx", "-o", tmp_path / "g.onnx")
    result = run(*given)
    assert result.exit_code == 1
    assert "differs from finite differences" in result.output
    assert not list(tmp_path.iterdir())
    assert run(*given, "--no-check").exit_code == 0
    assert (tmp_path / "g.onnx").is_file()


def test_demo(run, tmp_path):
    result = run("demo", "-o", tmp_path / "demo", "--device", "cpu")
    assert result.exit_code == 0, result.output
    index = json.loads((tmp_path / "demo" / "dataset" / "index.json").read_text())
    assert index["counts"]["images"] == 512
    assert index["clean_accuracy"] > 0.88
    assert index["adversarial_accuracy"] < 0.45
    assert "verified" in result.output
    assert " images/s)" in result.output
    assert (tmp_path / "demo" / "preview.png").is_file()


def test_a_second_demo_says_that_it_was_there_and_what_to_do_next(
    run, tmp_path, monkeypatch, artifact, images
):
    from jataug import demo

    made = demo.Demo(
        DEMO / "classifier.onnx", images, artifact, tmp_path, tmp_path / "p.png", 512, 0.94, 0.0,
        True, "CPUExecutionProvider", "joint attack", 0.0,
    )  # fmt: skip
    monkeypatch.setattr(demo, "run_demo", lambda *_, **__: made)
    result = run("demo", "-o", tmp_path)
    assert "images/s" not in result.output
    assert "made by an earlier run" in result.output
    monkeypatch.chdir(tmp_path)
    commands = [line for line in result.output.splitlines() if line.startswith("  jataug ")]
    assert len(commands) == 2
    for number, words in enumerate(map(shlex.split, commands)):
        quick = ("--no-check",), ("--limit", "12", "--attacks", "fgsm", "--no-curves")
        done = run(*words[1:], *quick[number])
        assert done.exit_code == 0, done.output


def test_export_says_what_the_model_sees_and_what_it_replaces(run, tmp_path):
    words = ("export", DEMO / "classifier.onnx", "-o", tmp_path / "a.onnx", "--no-check")
    first = run(*words, "--mean", "0.5", "--std", "0.25")
    assert "model sees grey, nchw, values from -2 to 2 (--mean 0.5 --std 0.25)" in first.output
    assert "replaced" not in first.output
    second = run(*words)
    assert "values from 0 to 1 (images in [0, 1] as they are; no --mean" in second.output
    assert "a.onnx: step, 0.5 MB; the file that was there is replaced" in second.output
    given = ("differentiate", DEMO / "classifier.onnx", "-o", tmp_path / "a.onnx", "--no-check")
    assert "the file that was there is replaced" in run(*given).output


def test_inspect_tells_the_batch_of_the_file_from_that_of_an_attack(run, tmp_path):
    model = onnx.load(DEMO / "classifier.onnx")
    assert "batch            any\n" in run("inspect", DEMO / "classifier.onnx").output
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "fixed.onnx")
    said = run("inspect", tmp_path / "fixed.onnx").output
    assert "batch            1 in the file; an attack on it takes any\n" in said
    assert "inputs           image [1, 1, 28, 28]\n" in said
    assert "outputs          logits [1, 10]\n" in said


def test_a_line_of_progress_reads_well(monkeypatch, capsys):
    from jataug.cli import progress
    from jataug.dataset import Progress

    monkeypatch.setattr(progress.time, "monotonic", iter([0.0, 1.0, 20.0, 40.0]).__next__)
    with progress.Bar("generate") as bar:
        bar(Progress(0, 40))
        bar(Progress(20, 40, clean_correct=20, adversarial_correct=5))
        bar(Progress(40, 40))
    assert capsys.readouterr().err.splitlines() == [
        "generate: 20/40, 1.1 img/s, 19 s left, accuracy 1.000 -> 0.250",
        "generate: 40/40, 1.0 img/s, 0 s left",
    ]


def test_options_come_from_a_file(run, tmp_path):
    (tmp_path / "jataug.toml").write_text("[export]\nsteps = 4\nflow = 0.5\nmean = [0.5]\n")
    words = ("export", DEMO / "classifier.onnx", "-o", tmp_path / "a.onnx", "--no-check")
    result = run(*words, "--config", tmp_path / "jataug.toml", "--flow", "0.25")
    assert result.exit_code == 0, result.output
    with jataug.Session.open(tmp_path / "a.onnx") as session:
        assert session.config.steps == 4
        assert session.config.flow.radius == 0.25
        assert session.manifest["preprocessing"]["mean"] == (0.5,)


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_forms(run, images, tmp_path, form):
    path = tmp_path / "attack.onnx"
    words = ("export", DEMO / "classifier.onnx", "-o", path, "--steps", "2", "--form", form)
    assert run(*words).exit_code == 0
    with np.load(images) as arrays, jataug.Session.open(path, device="cpu") as session:
        result = session.attack(arrays["images"][:4, :, :, None], arrays["labels"][:4])
    assert result.adversarial.shape == (4, 28, 28, 1)


def test_help_is_quick_to_import():
    code = (
        "import sys, jataug.cli.main as m; m.main(['--help'], standalone_mode=False);"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'PIL'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.rstrip().endswith("[]")
