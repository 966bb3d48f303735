"""Files of released versions, which this version reads, runs and verifies; files with newer keys,
which it reads; and files of a newer format version, which it refuses in one line.
"""

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from same_attack import GAIN

import jataug
from jataug.artifact import KEY, load_artifact
from jataug.checks import digest as json_digest
from jataug.cli import main
from jataug.data import open_source
from jataug.errors import ArtifactError, DataError
from jataug.evaluation import load_report
from jataug.loaders.numpy import dataset

GOLDEN = Path(__file__).parent / "golden"
RELEASES = sorted(path.name for path in GOLDEN.iterdir() if (path / "contents.json").is_file())
FORMATS = ("folder", "npz", "tar", "parquet")
EVERY = [(release, form) for release in RELEASES for form in FORMATS]


def contents(release: str) -> list[dict[str, Any]]:
    return json.loads((GOLDEN / release / "contents.json").read_text(encoding="utf-8"))


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def needs(form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow, of jataug[parquet], is not installed")


def test_there_are_some_and_they_are_small() -> None:
    assert RELEASES == ["0.1"]
    size = sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file())
    assert size < 500_000
    successes = [entry["success"] for entry in contents("0.1")]
    assert any(successes)
    assert not all(successes)


@pytest.mark.parametrize("release", RELEASES)
def test_the_artifact_runs(release: str) -> None:
    root = GOLDEN / release
    expected = contents(release)
    with np.load(root / "source.npz") as arrays:
        images, labels = arrays["images"][..., None], arrays["labels"]
    with jataug.Session.open(root / "attack.onnx", device="cpu", threads=1) as session:
        found = session.attack(images, labels, seed=7)
        clean = session.attack(images, labels, flow=0, pixel=0, steps=0)
    assert [entry["target"] for entry in expected] == found.target.tolist()
    assert sum(e["success"] != s for e, s in zip(expected, found.success, strict=True)) <= 1
    stored = np.stack([sample.image for sample in jataug.open_dataset(root / "folder")])
    lines = (root / "folder" / "records").glob("*.jsonl")
    rows = [json.loads(line) for file in sorted(lines) for line in file.read_text().splitlines()]
    losses = np.array([row["loss"] for row in rows])
    assert abs(found.loss.mean() - losses.mean()) <= GAIN * np.abs(losses - clean.loss).mean()
    changed = np.abs(stored.astype(int) - images)
    assert changed.max() > 4


@pytest.mark.parametrize(("release", "form"), EVERY)
def test_the_data_set_is_read(release: str, form: str) -> None:
    needs(form)
    root, expected = GOLDEN / release / form, contents(release)
    stored = list(jataug.open_dataset(root))
    for name in ("index", "key", "label", "target"):
        assert [getattr(s, name) for s in stored] == [entry[name] for entry in expected]
    assert [digest(s.image) for s in stored] == [entry["image"] for entry in expected]
    assert [digest(s.flow) for s in stored] == [entry["flow"] for entry in expected]
    loaded = dataset(root, verify="full")
    assert [digest(s["image"]) for s in loaded] == [entry["image"] for entry in expected]
    source = open_source(root)
    assert [digest(source.read(k)) for k in range(len(source))] == [e["image"] for e in expected]


@pytest.mark.parametrize(("release", "form"), EVERY)
def test_the_data_set_verifies(release: str, form: str) -> None:
    needs(form)
    root = GOLDEN / release
    report = jataug.verify(root / form, root / "source.npz", root / "attack.onnx", device="cpu")
    assert report.problems == ()
    assert (report.budget, report.changed_predictions) == ("checked", 0)
    assert report.worst_pixel_excess is not None
    assert report.worst_pixel_excess <= 0
    assert report.images == len(contents(release))


@pytest.mark.parametrize("release", RELEASES)
def test_the_command_line_takes_them(release: str, tmp_path: Path) -> None:
    root = GOLDEN / release
    for words in (
        ("inspect", root / "attack.onnx"),
        ("inspect", root / "folder"),
        ("verify", root / "npz", "--source", root / "source.npz", "--model", root / "attack.onnx"),
        ("generate", root / "attack.onnx", root / "tar", tmp_path / "again", "--batch-size", 2),
    ):
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output


def test_how_the_last_ones_were_made(tmp_path: Path) -> None:
    """The script makes them again: the same plans and contents, and a graph of the same face."""
    spec = importlib.util.spec_from_file_location("make", GOLDEN / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pytest.importorskip("pyarrow", reason="pyarrow, of jataug[parquet], is not installed")
    made, kept = tmp_path / "made", GOLDEN / RELEASES[-1]
    module.make(made)
    files = [{p.relative_to(root) for p in root.rglob("*")} for root in (made, kept)]
    assert files[0] == files[1]
    for form in FORMATS:
        assert plan(made / form) == plan(kept / form)
    (_, new), (_, old) = load_artifact(made / "attack.onnx"), load_artifact(kept / "attack.onnx")
    for name in ("config", "preprocessing", "image_shape", "inputs", "form", "format_version"):
        assert getattr(new, name) == getattr(old, name)
    plain = ("index", "key", "label", "target")
    again = json.loads((made / "contents.json").read_text(encoding="utf-8"))
    for old_entry, new_entry in zip(contents(RELEASES[-1]), again, strict=True):
        assert [old_entry[name] for name in plain] == [new_entry[name] for name in plain]


def plan(root: Path) -> dict[str, Any]:
    """The plan, but for what depends on the time and on the versions."""
    found = json.loads((root / "plan.json").read_text(encoding="utf-8"))["plan"]
    found["source"].pop("fingerprint")
    found.pop("artifact")
    return found


NEWER_KEY = {"a key of a newer version": [1]}


def test_newer_keys_of_a_manifest_are_ignored(tmp_path: Path) -> None:
    path = GOLDEN / "0.1" / "attack.onnx"
    model, (_, expected) = onnx.load(path), load_artifact(path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == KEY)
    data = {**json.loads(entry.value), **NEWER_KEY}
    del data["manifest_sha256"]
    entry.value = json.dumps({**data, "manifest_sha256": json_digest(data)})
    onnx.save(model, tmp_path / "attack.onnx")
    assert load_artifact(tmp_path / "attack.onnx")[1] == expected
    entry.value = json.dumps({**data, "another": 2, "manifest_sha256": json_digest(data)})
    onnx.save(model, tmp_path / "attack.onnx")
    with pytest.raises(ArtifactError, match="edited"):
        load_artifact(tmp_path / "attack.onnx")


@pytest.mark.parametrize("name", ["config", "preprocessing"])
def test_newer_options_of_an_attack_are_refused(name: str, tmp_path: Path) -> None:
    """A session cannot honour an option that it does not know."""
    model = onnx.load(GOLDEN / "0.1" / "attack.onnx")
    (entry,) = (entry for entry in model.metadata_props if entry.key == KEY)
    data = json.loads(entry.value)
    entry.value = json.dumps({**data, name: {**data[name], **NEWER_KEY}})
    onnx.save(model, tmp_path / "attack.onnx")
    with pytest.raises(ArtifactError, match="a key of a newer version"):
        load_artifact(tmp_path / "attack.onnx")


@pytest.mark.parametrize("form", FORMATS)
def test_newer_keys_of_a_plan_are_ignored(form: str, tmp_path: Path) -> None:
    needs(form)
    root = tmp_path / "set"
    shutil.copytree(GOLDEN / "0.1" / form, root)
    index = json.loads((root / "index.json").read_text(encoding="utf-8"))
    plan = {**index["plan"], **NEWER_KEY}
    newer = {**NEWER_KEY, "plan": plan, "plan_hash": json_digest(plan)}
    (root / "index.json").write_text(json.dumps({**index, **newer}), encoding="utf-8")
    (root / "plan.json").write_text(json.dumps({"format_version": 1, **newer}), encoding="utf-8")
    assert [digest(s.image) for s in jataug.open_dataset(root)] == [
        entry["image"] for entry in contents("0.1")
    ]
    assert len(dataset(root, verify="full")) == len(open_source(root)) == len(contents("0.1"))
    source = str(GOLDEN / "0.1" / "source.npz")
    for words in (("inspect", root), ("verify", root, "--source", source)):
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output


def newer_artifact(root: Path) -> Path:
    model = onnx.load(GOLDEN / "0.1" / "attack.onnx")
    (entry,) = (entry for entry in model.metadata_props if entry.key == KEY)
    entry.value = json.dumps({**json.loads(entry.value), "format_version": 2})
    onnx.save(model, root / "attack.onnx")
    return root / "attack.onnx"


def bumped(path: Path) -> Path:
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["format_version"] == 1
    path.write_text(json.dumps({**data, "format_version": 2}), encoding="utf-8")
    return path


def one_line(error: pytest.ExceptionInfo[Exception], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for word in ("format_version", "2", "update jataug", *words):
        assert word in text


def test_a_newer_artifact_is_refused(tmp_path: Path) -> None:
    path = newer_artifact(tmp_path)
    with pytest.raises(ArtifactError) as error:
        jataug.Session.open(path)
    one_line(error, "attack.onnx")
    done = CliRunner().invoke(main, ["inspect", str(path)])
    assert done.exit_code == 2
    assert len(done.output.splitlines()) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_a_newer_data_set_is_refused(form: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "0.1" / form, tmp_path / "set")
    bumped(tmp_path / "set" / "index.json")
    for read in (jataug.open_dataset, dataset, jataug.verify):
        with pytest.raises(DataError) as error:
            read(tmp_path / "set")
        one_line(error, "index.json")


def test_a_newer_report_is_refused(tmp_path: Path) -> None:
    example = Path(__file__).parent / "evaluation" / "example" / "report.json"
    shutil.copy(example, tmp_path / "report.json")
    with pytest.raises(DataError) as error:
        load_report(bumped(tmp_path / "report.json"))
    one_line(error, "report.json")


def test_a_newer_run_is_refused(tmp_path: Path) -> None:
    from jataug.trainer import load_run

    run = {"kind": "jataug training run", "format_version": 2}
    (tmp_path / "config.json").write_text(json.dumps(run), encoding="utf-8")
    with pytest.raises(DataError) as error:
        load_run(tmp_path)
    one_line(error)
