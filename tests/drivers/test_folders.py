"""The Node.js and the C++ driver: the test vector, a folder of images, and wrong input."""

import csv
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from drivers.packages import EXAMPLES, program
from PIL import Image
from same_attack import GAIN

from jataug import Session

CHECKED = 81
DRIVERS = ["node", pytest.param("cpp", marks=pytest.mark.heavy)]


@dataclass(frozen=True)
class Driver:
    """How a driver is called, and what its images are called."""

    attack: list[str]
    check: list[str]
    suffix: str

    def run(self, words: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*words, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Driver:
    where = request.getfixturevalue(request.param)
    if request.param == "cpp":
        return Driver([str(where)], [str(where), "--check"], "pgm")
    start = [program("node")]
    return Driver([*start, str(where / "attack.mjs")], [*start, str(where / "check.mjs")], "png")


@pytest.fixture
def folder(driver: Driver, pictures: Path, tmp_path: Path) -> Path:
    """The images that this driver reads, alone."""
    made = tmp_path / "in"
    made.mkdir()
    for path in pictures.glob(f"*.{driver.suffix}"):
        shutil.copy(path, made)
    return made


def test_the_vector_is_reproduced(driver: Driver) -> None:
    run = driver.run(driver.check, EXAMPLES / "vector")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "WRONG" not in run.stdout
    agreed, of, total, *_ = run.stdout.splitlines()[-1].split()
    assert of == "of"
    assert agreed == total
    assert int(agreed) >= CHECKED
    for form in ("claim-1 loop kept_flow", "evaluation step kept_delta", "claim-8 step final_loss"):
        assert form in run.stdout


@pytest.mark.parametrize("tensor", ["start_delta", "first_flow", "kept_delta", "final_levels"])
def test_a_difference_is_found(driver: Driver, tensor: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "vector", tmp_path / "vector")
    place = json.loads((tmp_path / "vector/vector.json").read_text())["cases"][0]["tensors"][tensor]
    data = bytearray((tmp_path / "vector/vector.bin").read_bytes())
    if place["dtype"] == "uint8":
        data[place["offset"]] ^= 1
    else:
        number = np.frombuffer(data, "<f4", 1, place["offset"]) + np.float32(2e-4)
        data[place["offset"] : place["offset"] + 4] = number.astype("<f4").tobytes()
    (tmp_path / "vector/vector.bin").write_bytes(data)
    run = driver.run(driver.check, tmp_path / "vector")
    assert run.returncode == 1
    assert any(tensor in line and "WRONG" in line for line in run.stdout.splitlines())


def test_a_folder_is_attacked_as_the_session_does(
    driver: Driver, folder: Path, attack_file: Path, levels: np.ndarray, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--seed", 2**64 - 1, "--flow", 0.5, "--pixel", "6/255", "--steps", 3)
    run = driver.run(driver.attack, attack_file, folder, out, *options, "--batch", 2)
    assert run.returncode == 0, run.stderr
    with Session.open(attack_file, device="cpu", threads=1) as session:
        wanted = session.attack(levels, seed=2**64 - 1, flow=0.5, pixel="6/255", steps=3)
        clean = session.attack(levels, flow=0, pixel=0, steps=0)
        made = np.stack(
            [np.asarray(Image.open(out / f"{index + 7}.{driver.suffix}")) for index in range(5)]
        )
        measured = session.predict(made[..., None])
    assert np.abs(made.astype(int) - levels[..., 0]).max() > 0
    rows = report(out)
    assert [row["image"] for row in rows] == [f"{i + 7}.{driver.suffix}" for i in range(5)]
    for key, values in (("label", wanted.label), ("target", wanted.target)):
        assert [int(row[key]) for row in rows] == values.tolist()
    # What is reported is what the images that were written have; each step is held by the vector.
    found = np.array([float(row["loss"]) for row in rows])
    logits = torch.from_numpy(measured)
    own = torch.nn.functional.cross_entropy(
        logits, torch.from_numpy(wanted.label), reduction="none"
    )
    np.testing.assert_allclose(found, own.numpy(), rtol=1e-3, atol=1e-3)
    predictions = np.array([int(row["prediction"]) for row in rows])
    np.testing.assert_array_equal(predictions, measured.argmax(1))
    assert (predictions != wanted.prediction).sum() <= 1
    gained = (wanted.loss - clean.loss).mean()
    assert gained > 1
    assert abs(found.mean() - wanted.loss.mean()) <= GAIN * gained


def report(folder: Path) -> list[dict[str, str]]:
    table = folder / "results.csv"
    if table.is_file():
        return list(csv.DictReader(table.read_text().splitlines()))
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"artifact": "missing.onnx"}, "missing.onnx"),
        ({"artifact": "text.onnx"}, "ONNX|artifact"),
        ({"artifact": "model"}, "no manifest"),
        ({"artifact": "vector"}, "9x10 pixels"),
        ({"folder": "empty"}, "found none"),
        ({"options": ("--flow", "1.5")}, "at most 1"),
        ({"options": ("--pixel", "1/0")}, "number >= 0, got 1/0"),
        ({"options": ("--seed", str(2**64))}, "seed"),
        ({"options": ("--steps", "x")}, "got x"),
        ({"options": ("--colour", "1")}, "colour"),
    ],
)
def test_wrong_input_gets_one_line_and_makes_nothing(
    driver: Driver, folder: Path, attack_file: Path, tmp_path: Path, change: dict, says: str
) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty").mkdir()
    known = {
        "model": EXAMPLES.parent / "jataug" / "demo" / "classifier.onnx",
        "vector": EXAMPLES / "vector" / "claim-1-step.onnx",
    }
    name = change.get("artifact")
    artifact = attack_file if name is None else known.get(name, tmp_path / name)
    source = tmp_path / change["folder"] if "folder" in change else folder
    out = tmp_path / "out"
    run = driver.run(driver.attack, artifact, source, out, *change.get("options", ()))
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1
    assert np.any([part in run.stderr for part in says.split("|")]), run.stderr
    assert not (out.exists() and list(out.iterdir()))


def test_a_full_folder_is_left_alone(
    driver: Driver, folder: Path, attack_file: Path, tmp_path: Path
) -> None:
    before = sorted(folder.iterdir())
    run = driver.run(driver.attack, attack_file, folder, folder)
    assert run.returncode == 2
    assert "new or empty folder" in run.stderr
    assert sorted(folder.iterdir()) == before


def test_lock_files_name_no_registry() -> None:
    for name in ("node", "browser"):
        lock = json.loads((EXAMPLES / name / "package-lock.json").read_text())
        assert len(lock["packages"]) > 2
        for path, package in lock["packages"].items():
            assert "resolved" not in package, path
            assert not path or package["integrity"].startswith("sha512-")
