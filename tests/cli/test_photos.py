"""A folder of photographs as a telephone leaves it: files that are not read, and broken ones."""

import json
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
