"""Every flipped byte is noticed, and named by shard and key where it lies in an image."""

import json

import numpy as np
import pytest

from jataug.dataset import verify
from jataug.generator import generate

CONTAINERS = ["npz", "tar", "parquet"]


@pytest.fixture
def made(session, folder, tmp_path):
    def make(format):
        options = {"batch_size": 4, "shard_size": 8, "save_flow": True, "save_float": True}
        generate(None, folder, tmp_path / format, session=session, format=format, **options)
        return tmp_path / format

    return make


def stored(root, format, row):
    """The bytes of an image as they are stored, and its key."""
    record = json.loads((root / "records" / "shard-00000.jsonl").read_text().splitlines()[row])
    if format == "npz":
        return np.load(root / record["file"])["images"][row].tobytes(), record["key"]
    from jataug.dataset import open_dataset

    shard = open_dataset(root)._open(0)
    return shard.reader.data(row), record["key"]


@pytest.mark.parametrize("format", CONTAINERS)
@pytest.mark.parametrize("row", [0, 3, 7])
def test_a_flipped_byte_in_an_image_names_shard_and_key(made, format, row):
    root = made(format)
    data, key = stored(root, format, row)
    path = root / "images" / f"shard-00000.{format}"
    whole = path.read_bytes()
    assert whole.count(data) == 1
    changed = bytearray(whole)
    changed[whole.index(data) + len(data) // 2] ^= 0x01
    path.write_bytes(changed)
    report = verify(root)
    assert not report.ok
    name = f"images/shard-00000.{format}"
    assert report.problems == (
        f"shard-00000 {name}: expected the file of the index, got a changed file",
        f"shard-00000 {key}: expected the image of the records, got a changed one",
    )


@pytest.mark.parametrize("format", CONTAINERS)
def test_a_flipped_byte_anywhere_is_noticed(made, format):
    root = made(format)
    path = root / "images" / f"shard-00000.{format}"
    whole = path.read_bytes()
    random = np.random.default_rng(2)
    for place in random.integers(0, len(whole), 60):
        changed = bytearray(whole)
        changed[place] ^= 1 << random.integers(8)
        path.write_bytes(changed)
        report = verify(root)
        assert any(
            p.startswith(f"shard-00000 images/shard-00000.{format}: ") for p in report.problems
        )
        assert all("\n" not in problem for problem in report.problems)


@pytest.mark.parametrize("format", CONTAINERS)
@pytest.mark.parametrize("keep", [0, 10, 700, -1])
def test_a_cut_shard_is_noticed(made, format, keep):
    root = made(format)
    path = root / "images" / f"shard-00000.{format}"
    path.write_bytes(path.read_bytes()[:keep])
    report = verify(root)
    assert any("expected the file of the index, got a changed file" in p for p in report.problems)
    path.unlink()
    assert any("got no readable file" in p for p in verify(root).problems)


@pytest.mark.parametrize("format", ["folder", *CONTAINERS])
def test_a_flow_that_is_not_the_recorded_one_names_its_key(made, format):
    """Whoever forges a flow and every hash of a file still has to forge the records."""
    import hashlib

    root = made(format)
    record = json.loads((root / "records" / "shard-00000.jsonl").read_text().splitlines()[2])
    record["flow_sha256"] = hashlib.sha256(b"another").hexdigest()
    lines = (root / "records" / "shard-00000.jsonl").read_text().splitlines()
    lines[2] = json.dumps(record)
    (root / "records" / "shard-00000.jsonl").write_text("\n".join(lines) + "\n")
    problems = verify(root).problems
    wanted = f"shard-00000 {record['key']}: expected the flow of the records, got a changed one"
    assert wanted in problems


@pytest.mark.parametrize("format", ["tar", "parquet"])
@pytest.mark.parametrize("change", [{"label": 2}, {"loss": 0.5}, {"target": 0}])
def test_columns_that_lie_are_named_by_their_key(made, format, change):
    root = made(format)
    path = root / "records" / "shard-00000.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[1])
    lines[1] = json.dumps({**record, **change})
    path.write_text("\n".join(lines) + "\n")
    found = [p for p in verify(root).problems if p.startswith(f"shard-00000 {record['key']}: ")]
    assert found
    assert "of the records" in found[0] or "as in the records" in found[0]


@pytest.mark.parametrize("name", ["README.md", "preview.png"])
@pytest.mark.parametrize("harm", ["remove", "change"])
def test_the_card_and_its_picture_are_checked(made, name, harm):
    root = made("npz")
    if harm == "remove":
        (root / name).unlink()
    else:
        (root / name).write_bytes((root / name).read_bytes() + b"\n")
    state = "no readable file" if harm == "remove" else "a changed file"
    assert verify(root).problems == (f"{name}: expected the file of the index, got {state}",)
