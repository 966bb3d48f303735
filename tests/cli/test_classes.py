"""What each command says of class folders: their order, the first ones, and where not to write."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jataug

DEMO = Path(jataug.__file__).parent / "demo"
MODEL = DEMO / "classifier.onnx"
NAMES = [str(number) for number in range(1, 11)]
PLAIN = sorted(NAMES)
SAID = "classes: 0 1, 1 10, 2 2, 3 3, 4 4, ... (10)"
CPU = ("--device", "cpu")
QUICK = ("--attacks", "noise", "--no-curves", "--no-sanity", "--format", "json", *CPU)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two images a class, in folders as ImageFolder would number them: class k is PLAIN[k]."""
    root = tmp_path_factory.mktemp("classes") / "photos"
    with np.load(DEMO / "images.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    for number, name in enumerate(PLAIN):
        (root / name).mkdir(parents=True)
        for row in np.flatnonzero(labels == number)[:2]:
            Image.fromarray(images[row].squeeze()).save(root / name / f"{row}.png")
    return root


@pytest.fixture(params=["generate", "preview", "evaluate", "train"])
def words(request, artifact, photos, tmp_path):
    """A command on the photos, and where it writes."""
    if request.param == "train":
        pytest.importorskip("torch", reason="torch is not installed")
    out = tmp_path / "out.png"
    options = {
        "generate": ("generate", artifact, photos, out, *CPU),
        "preview": ("preview", artifact, photos, "-o", out, *CPU),
        "evaluate": ("evaluate", MODEL, photos, "-o", out, *QUICK),
        "train": (
            "train", photos, "-o", out, "--model", "small-cnn", "--epochs", 0, "--validation", 0,
            "--batch-size", 4, *CPU,
        ),
    }  # fmt: skip
    return options[request.param], out


def test_the_order_has_to_be_said(run, words):
    command, out = words
    done = run(*command)
    assert done.exit_code == 2
    assert done.stderr.count("Error:") == 1
    for said in ("0 1, 1 2, 2 3", "0 1, 1 10, 2 2", "--class-order sorted", "natural"):
        assert said in done.stderr
    assert not out.exists()


def test_the_first_classes_are_said(run, words):
    command, _ = words
    done = run(*command, "--class-order", "sorted")
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines().count(SAID) == (command[0] != "preview")
    assert SAID not in done.stdout


def test_nothing_is_written_into_the_source(run, words, photos, tmp_path):
    command, out = words
    try:
        (tmp_path / "link").symlink_to(photos, target_is_directory=True)
    except OSError:
        pytest.skip("links are not allowed here")
    inside = [tmp_path / "link" / "1" / out.name if word is out else word for word in command]
    before = sorted(photos.rglob("*"))
    done = run(*inside, "--class-order", "sorted")
    assert done.exit_code == 2
    assert "outside the source" in done.stderr
    assert sorted(photos.rglob("*")) == before


def test_accuracy_depends_on_the_order(run, artifact, photos, tmp_path):
    """The shipped classifier knows the folders in sorted order."""
    accuracy = {}
    for order in ("natural", "sorted"):
        out = tmp_path / order
        made = run("generate", artifact, photos, out, "--class-order", order, *CPU)
        assert made.exit_code == 0, made.output
        accuracy[order] = json.loads((out / "index.json").read_text())["clean_accuracy"]
        report = tmp_path / f"report-{order}"
        done = run("evaluate", MODEL, photos, "-o", report, *QUICK, "--class-order", order)
        assert done.exit_code == 0, done.output
        (found,) = json.loads((report / "report.json").read_text())["models"]
        assert found["clean_accuracy"]["value"] == pytest.approx(accuracy[order])
        again = run("evaluate", MODEL, photos, "-o", report, *QUICK, "--class-order",
                    {"natural": "sorted", "sorted": "natural"}[order])  # fmt: skip
        assert again.exit_code == 2
        assert "--class-order" in again.stderr
    assert accuracy["sorted"] > 0.8
    assert accuracy["natural"] < 0.3
    named = json.loads((tmp_path / "sorted" / "classes.json").read_text())
    assert named == {str(k): name for k, name in enumerate(PLAIN)}
    for order, code in (("sorted", 0), ("natural", 1)):
        verified = ("verify", tmp_path / "sorted", "--class-order", order)
        assert run(*verified).exit_code == code


def test_machines_hear_of_the_classes_too(run, artifact, photos, tmp_path):
    words = ("generate", artifact, photos, tmp_path / "out", "--class-order", "sorted", *CPU)
    done = run(*words, "--log-json", "--dry-run")
    assert done.exit_code == 0, done.output
    notes = [json.loads(line) for line in done.stderr.splitlines()]
    assert [note["text"] for note in notes if note["event"] == "note"] == [SAID]


def test_a_run_remembers_the_order(run, photos, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    words = ("train", photos, "-o", tmp_path / "run", "--model", "small-cnn", "--epochs", 0,
             "--validation", 0, "--batch-size", 4, *CPU)  # fmt: skip
    assert run(*words, "--class-order", "sorted").exit_code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert config["class_order"] == "sorted"
    other = run(*words, "--class-order", "natural")
    assert other.exit_code == 2
    assert "class_order" in other.stderr


@pytest.mark.parametrize("labels", ["source", "predicted"])
def test_splits_are_refused(run, artifact, tmp_path, labels):
    for split in ("train", "test"):
        for name in map(str, range(5)):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            Image.new("L", (28, 28)).save(tmp_path / "photos" / split / name / "1.png")
    done = run("generate", artifact, tmp_path / "photos", tmp_path / "out", "--labels", labels)
    assert done.exit_code == 2
    assert f"name one: {tmp_path / 'photos' / 'test'}" in done.stderr
