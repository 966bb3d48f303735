"""A folder of photographs as a telephone leaves it: files that are not read, and broken ones."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jataug

MODEL = Path(jataug.__file__).parent / "demo" / "classifier.onnx"


@pytest.fixture
def photos(tmp_path):
    """Four images of the model's size, two files that are none that jataug reads, and clutter."""
    folder = tmp_path / "photos"
    folder.mkdir()
    levels = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    for name, image in zip("aceg", levels, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    for name in ("IMG_1.HEIC", "clip.mp4", "Thumbs.db", ".DS_Store"):
        (folder / name).write_bytes(b"no image")
    return folder


def commands(artifact, photos, root):
    """Each command on the photographs, without the options that all take."""
    return {
        "generate": ("generate", artifact, photos, root / "out", "--batch-size", 2),
        "preview": ("preview", artifact, photos, "-o", root / "grid.png"),
        "evaluate": (
            "evaluate", MODEL, photos, "-o", root / "report", "--attacks", "fgsm", "--no-curves",
            "--no-sanity",
        ),
    }  # fmt: skip


COMMANDS = ("generate", "preview", "evaluate")
COMMON = ("--labels", "predicted", "--device", "cpu")


@pytest.mark.parametrize("name", COMMANDS)
def test_files_that_are_not_read_are_named_once(run, artifact, photos, tmp_path, name):
    done = run(*commands(artifact, photos, tmp_path)[name], *COMMON)
    assert done.exit_code == 0, done.output
    (line,) = (line for line in done.stderr.splitlines() if "IMG_1" in line)
    assert "2 files are not read (1 .heic, 1 .mp4; the first: IMG_1.HEIC); convert" in line
    assert "Thumbs" not in done.output
    assert "DS_Store" not in done.output


def test_machines_are_told_too(run, artifact, photos, tmp_path):
    words = commands(artifact, photos, tmp_path)["generate"]
    done = run(*words, *COMMON, "--log-json")
    said = [json.loads(line) for line in done.stderr.splitlines()]
    (note,) = (line["text"] for line in said if line["event"] == "note")
    assert "2 files are not read" in note


@pytest.fixture
def broken(photos):
    """The photographs, with a file that is cut off at the second place and one at the last."""
    data = (photos / "a.png").read_bytes()
    for name in ("b.png", "h.png"):
        (photos / name).write_bytes(data[: len(data) // 2])
    return photos


@pytest.mark.parametrize("name", COMMANDS)
def test_a_broken_image_is_left_out_by_name(run, artifact, broken, tmp_path, name):
    words = (*commands(artifact, broken, tmp_path)[name], *COMMON)
    refused = run(*words)
    assert refused.exit_code == 2
    assert "b.png: expected a whole image" in refused.stderr
    assert refused.stderr.rstrip().endswith("(--on-error skip leaves such images out)")
    done = run(*words, "--on-error", "skip")
    assert done.exit_code == 0, done.output
    said = [line for line in done.stderr.splitlines() if line.startswith("skipped: ")]
    assert [line.split("/")[-1].split(":")[0] for line in said] == ["b.png", "h.png"]


@pytest.mark.parametrize("name", COMMANDS)
def test_where_all_are_broken_there_is_nothing_to_do(run, artifact, photos, tmp_path, name):
    for letter in "aceg":
        (photos / f"{letter}.png").write_bytes(b"")
    words = (*commands(artifact, photos, tmp_path)[name], *COMMON, "--on-error", "skip")
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert "expected at least one image that can be used, got none of 4" in done.stderr


def test_a_report_names_what_was_left_out(run, artifact, broken, tmp_path):
    words = (
        *commands(artifact, broken, tmp_path)["evaluate"],
        *COMMON,
        "--format",
        "md",
        "--format",
        "html",
    )
    done = run(*words, "--on-error", "skip")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    assert (report["images"], report["source"]["count"]) == (4, 6)
    assert [(s["index"], s["key"]) for s in report["source"]["skipped"]] == [(1, "b"), (5, "h")]
    assert [row["key"] for row in report["models"][0]["images"]] == list("aceg")
    assert [row["index"] for row in report["models"][0]["images"]] == [0, 2, 3, 4]
    warned = "2 of 6 images could not be used and were left out; the first: "
    assert any(warning.startswith(warned) for warning in report["models"][0]["warnings"])
    assert warned in (tmp_path / "report" / "report.md").read_text("utf-8")
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert warned in page
    assert re.search(r"source, skipped</\w+><\w+[^>]*>2<", page)


def test_a_preview_takes_the_next_image(run, artifact, broken, tmp_path):
    (broken / "a.png").write_bytes(b"")
    whole = tmp_path / "whole"
    whole.mkdir()
    for letter in "ceg":
        (whole / f"{letter}.png").write_bytes((broken / f"{letter}.png").read_bytes())
    sizes = []
    for source, left_out in ((broken, ["a.png", "b.png"]), (whole, [])):
        grid = tmp_path / "grid.png"
        words = ("preview", artifact, source, "-o", grid, "--count", 2, "--on-error", "skip")
        done = run(*words, *COMMON)
        assert done.exit_code == 0, done.output
        said = [line for line in done.stderr.splitlines() if line.startswith("skipped: ")]
        assert [line.split("/")[-1].split(":")[0] for line in said] == left_out
        with Image.open(grid) as picture:
            sizes.append(picture.size)
    assert sizes[0] == sizes[1]


def test_the_figures_of_the_other_images_do_not_change(run, photos, tmp_path):
    Image.new("L", (28, 28), 90).save(photos / "b.png")
    rows = []
    for name in ("whole", "broken"):
        words = ("evaluate", MODEL, photos, "-o", tmp_path / name, "--attacks", "noise:restarts=2")
        options = ("--no-curves", "--no-sanity", "--on-error", "skip", "--format", "json")
        assert run(*words, *options, *COMMON).exit_code == 0
        report = json.loads((tmp_path / name / "report.json").read_text("utf-8"))
        rows.append({row["key"]: row for row in report["models"][0]["images"]})
        (photos / "b.png").write_bytes(b"")
    assert set(rows[0]) - set(rows[1]) == {"b"}
    for key, row in rows[1].items():
        loss = rows[0][key]["loss"]["noise:restarts=2"]
        assert row["loss"]["noise:restarts=2"] == pytest.approx(loss, rel=1e-4), key


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("file", "said"), [("a.png", "put it into a folder"), ("IMG_1.HEIC", "converted to PNG or")]
)
def test_one_image_is_no_source(run, artifact, photos, tmp_path, name, file, said):
    done = run(*commands(artifact, photos / file, tmp_path)[name])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert f"{file}: expected a folder of images, got one image; put it" in line
    assert said in line
    assert "--labels predicted" in line


def opened_with(monkeypatch):
    """Return the numbers of threads that runtimes are opened with from now on."""
    from jataug.runtime.onnxruntime import Engine

    found, make = [], Engine.__init__

    def noted(self, model, sizes, device="auto", threads=None, *rest, **more):
        found.append(threads)
        make(self, model, sizes, device, threads, *rest, **more)

    monkeypatch.setattr(Engine, "__init__", noted)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_threads_reach_the_runtime(run, artifact, photos, tmp_path, name, monkeypatch):
    found = opened_with(monkeypatch)
    words = (*commands(artifact, photos, tmp_path)[name], *COMMON)
    assert run(*words, "--threads", 2).exit_code == 0
    assert found
    assert set(found) == {2}
    refused = run(*words, "--threads", 0)
    assert refused.exit_code == 2
    assert "threads: expected an integer >= 1, got 0" in refused.stderr


def test_verify_and_demo_take_threads(run, artifact, photos, tmp_path, monkeypatch):
    assert run(*commands(artifact, photos, tmp_path)["generate"], *COMMON).exit_code == 0
    found = opened_with(monkeypatch)
    words = ("verify", tmp_path / "out", "--threads", 2, "--model")
    assert run(*words, artifact).exit_code == 0
    assert found
    assert set(found) == {2}
    line = run(*words, MODEL).stderr
    assert "--threads" in line
    assert "attack artifact as --model" in line


class Labelled:
    """Twelve images of ten classes, each labelled as the class after the model's own."""

    def __init__(self, folder, artifact):
        with jataug.Session.open(artifact, device="cpu") as session:
            images = np.load(MODEL.parent / "images.npz")["images"][:12]
            said = session.predict(images[..., None]).argmax(1)
        self.wrong, self.right = folder / "wrong.npz", folder / "right.npz"
        np.savez(self.wrong, images=images, labels=(said + 1) % 10)
        np.savez(self.right, images=images, labels=said)


def test_an_accuracy_of_chance_is_remarked(run, artifact, tmp_path):
    sources = Labelled(tmp_path, artifact)
    for source, warned in ((sources.wrong, True), (sources.right, False)):
        for name in ("generate", "evaluate"):
            words = commands(artifact, source, tmp_path / source.stem)[name]
            done = run(*words, "--device", "cpu")
            assert done.exit_code == 0, done.output
            lines = [line for line in done.stderr.splitlines() if "chance" in line]
            assert len(lines) == warned, done.stderr
            for line in lines:
                assert "clean accuracy 0.0% is no better than chance (10.0%)" in line
                assert "--mean, --std, --scale and --channels" in line
                assert "--classes" in line


def test_an_evaluation_says_which_attack_is_under_way(run, artifact, photos, tmp_path):
    words = (*commands(artifact, photos, tmp_path)["evaluate"], *COMMON)
    done = run(*words)
    assert "classifier fgsm: 4/4, " in done.stderr
