"""jataug evaluate: what it prints and writes, and what it refuses in one line."""

import json
import shlex
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import jataug
from jataug.evaluation import schema

DEMO = Path(jataug.__file__).parent / "demo"
MODEL, IMAGES = DEMO / "classifier.onnx", DEMO / "images.npz"
SHORT = (
    "--limit", 16, "--attacks", "noise:restarts=2,pgd:steps=3,flow:steps=2", "--no-curves",
    "--no-sanity", "--device", "cpu",
)  # fmt: skip


def test_one_command_makes_a_report(run, tmp_path):
    out = tmp_path / "a report"
    done = run("evaluate", MODEL, IMAGES, "-o", out, *SHORT, "--format", "md")
    assert done.exit_code == 0, done.output
    report = json.loads((out / "report.json").read_text("utf-8"))
    jsonschema.validate(report, schema())
    assert report["command"].startswith(f"jataug evaluate {shlex.quote(str(MODEL))} ")
    for row in report["models"][0]["attacks"]:
        (line,) = (x for x in done.output.splitlines() if x.split()[:1] == [row["name"]])
        assert f"{100 * row['accuracy']['value']:.1f}%" in line
    assert "16 images, so the intervals are wide" in done.output
    assert "pgd:steps=3" in (out / "report.md").read_text("utf-8")
    assert not (out / "report.html").exists()


def test_several_models_and_transfer(run, tmp_path):
    out = tmp_path / "out"
    done = run("evaluate", MODEL, MODEL, IMAGES, "-o", out, *SHORT, "--transfer", MODEL,
               "--format", "json")  # fmt: skip
    assert done.exit_code == 0, done.output
    models = json.loads((out / "report.json").read_text("utf-8"))["models"]
    assert [model["name"] for model in models] == ["classifier", "classifier-2"]
    assert {t["target"] for t in models[0]["transfer"]} == {"classifier-2", "classifier-3"}
    assert {entry.name for entry in out.iterdir()} == {
        "attacks", "plan.json", "gallery-0.npz", "gallery-1.npz", "report.json"
    }  # fmt: skip


def test_goes_on_and_refuses_another(run, tmp_path):
    command = ("evaluate", MODEL, IMAGES, "-o", tmp_path / "out", *SHORT, "--format", "json")
    assert run(*command).exit_code == 0
    assert run(*command).exit_code == 0
    other = run(*command, "--seed", 2)
    assert other.exit_code == 2
    for word in ("out/", "--seed 0", "--seed 2", "another folder"):
        assert word in other.output


def test_config_file(run, tmp_path):
    (tmp_path / "c.toml").write_text('[evaluate]\nattacks = ["fgsm"]\npixel = "2/255"\nlimit = 8\n')
    done = run(
        "evaluate", MODEL, IMAGES, "-o", tmp_path / "out", "--config", tmp_path / "c.toml",
        "--no-curves", "--no-sanity", "--format", "json", "--device", "cpu",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["pixel"]["radius"] == pytest.approx(2 / 255)
    assert [row["name"] for row in report["models"][0]["attacks"]] == ["fgsm"]


def test_what_is_printed_fits_80_columns_and_says_each_thing_once(run, tmp_path):
    words = (
        "--limit",
        16,
        "--attacks",
        "pgd:steps=3,flow:steps=2",
        "--no-curves",
        "--device",
        "cpu",
    )
    done = run("evaluate", MODEL, IMAGES, "-o", tmp_path / "out", *words, "--format", "json")
    assert done.exit_code == 0, done.output
    told = done.stdout.partition("report.json")[0].splitlines()[:-1]
    assert max(len(line) for line in told) <= 80
    assert [line.split()[:3] for line in told if "worst" in line] == [["worst", "of", "2"]]
    assert "  sanity checks: passed" in told
    assert "    ok    more steps are not weaker" in told
    few = run("evaluate", MODEL, IMAGES, "-o", tmp_path / "few", *words, "--limit", 4)
    assert "  sanity checks: undecided" in few.stdout
    assert "too few images to tell: 4 classified right" in few.stdout
    assert "    ok " not in few.stdout


def wrong_size(folder):
    np.savez(folder / "wrong.npz", images=np.zeros((3, 9, 9), np.uint8), labels=np.zeros(3, int))
    return folder / "wrong.npz"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((MODEL,), "at least one MODEL"),
        ((MODEL, IMAGES, "--attacks", "pdg"), "did you mean pgd?"),
        ((MODEL, IMAGES, "--limit", 9999), "the source has 512"),
        ((MODEL, IMAGES, "--pixel", "x"), "pixel radius: expected a number"),
        ((MODEL, IMAGES, "--suite", "slow"), "'quick', 'strong'"),
        ((MODEL, IMAGES, "--epoch", 1), "--epoch: an evaluation has one epoch"),
        ((MODEL, "missing/"), "expected a directory"),
        (("missing.onnx", IMAGES), "missing.onnx"),
        ((MODEL, IMAGES, "--crop", 14), "expected 28x28 pixels"),
        ((IMAGES, MODEL), "the order is jataug evaluate MODEL... SOURCE"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(run, tmp_path, words, message):
    done = run("evaluate", *words, "-o", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert not (tmp_path / "out" / "report.json").exists()


def test_images_of_another_size(run, tmp_path):
    done = run("evaluate", MODEL, wrong_size(tmp_path), "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "expected 28x28 pixels, got 9x9" in done.output


def test_a_foreign_folder_is_left_alone(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = run("evaluate", MODEL, IMAGES, "-o", tmp_path, *SHORT)
    assert done.exit_code == 2
    assert "nothing was touched" in done.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def test_chance_is_warned_of(run, tmp_path):
    done = run(
        "evaluate", MODEL, IMAGES, "-o", tmp_path / "out", *SHORT, "--mean", 5, "--format", "json"
    )
    assert done.exit_code == 0, done.output
    assert "12.5% is hardly better than chance (10.0%): check --mean, --std, --scale" in done.output
