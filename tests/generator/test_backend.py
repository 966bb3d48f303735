"""The backend of a data set: recorded, part of the plan, and verified like any other."""

import json
from importlib.util import find_spec

import click.testing
import numpy as np
import pytest
from same_attack import GAIN

from jataug import AttackConfig, DataError, FlowBudget, PixelBudget, Session, generate, verify
from jataug.cli import main
from jataug.dataset.plan import Plan
from jataug.export import export_attack

if find_spec("openvino") is None:  # not importorskip: an import of it is reported to a server
    pytest.skip("needs jataug[openvino]", allow_module_level=True)

CONFIG = AttackConfig(flow=FlowBudget(0.5), pixel=PixelBudget("8/255"), steps=2)
OPTIONS = {"batch_size": 4, "threads": 1, "format": "npz", "labels": "predicted"}


@pytest.fixture(scope="module")
def attack(tiny_net, tmp_path_factory):
    path = tmp_path_factory.mktemp("attack") / "attack.onnx"
    export_attack(tiny_net.path, CONFIG, path, check=False)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "images.npz"
    levels = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3)).astype(np.uint8)
    np.savez(path, images=levels, labels=np.zeros(10, np.int64))
    return path


def index(folder):
    return json.loads((folder / "index.json").read_text())


def rows_of(folder):
    (file,) = (folder / "records").glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_made_recorded_verified(attack, source, tmp_path):
    report = generate(attack, source, tmp_path / "out", backend="openvino", **OPTIONS)
    assert report.images == 10
    found = index(tmp_path / "out")
    assert found["plan"]["backend"] == "openvino"
    (environment,) = found["environments"]
    assert environment["openvino"].startswith("20")
    assert environment["providers"] == ["OpenVINO CPU f32"]
    assert "onnxruntime" not in environment
    card = (tmp_path / "out" / "README.md").read_text()
    assert "--backend openvino" in card
    assert f"openvino {environment['openvino']}" in card
    checked = verify(tmp_path / "out", source, attack)
    assert checked.ok
    assert checked.changed_predictions == 0


def test_the_same_attack(attack, source, tmp_path):
    for backend in ("onnxruntime", "openvino"):
        generate(attack, source, tmp_path / backend, backend=backend, **OPTIONS)
    golden, ours = (rows_of(tmp_path / backend) for backend in ("onnxruntime", "openvino"))
    for name in ("index", "label", "target", "failed", "clean_prediction"):
        assert [row[name] for row in ours] == [row[name] for row in golden]
    assert sum(a["success"] != b["success"] for a, b in zip(ours, golden, strict=True)) <= 1
    # That OpenVINO's images are in their budget is checked in test_made_recorded_verified.
    with Session.open(attack, batch_size=4, threads=1) as session, np.load(source) as arrays:
        clean = session.attack(arrays["images"], steps=0, flow=0, pixel=0).loss
    losses = [np.array([row["loss"] for row in rows]) for rows in (golden, ours)]
    gained = np.abs(losses[0] - clean).mean()
    assert abs(losses[1].mean() - losses[0].mean()) <= GAIN * gained
    assert "backend" not in index(tmp_path / "onnxruntime")["plan"]


def test_another_backend_does_not_go_on(attack, source, tmp_path):
    first = {**OPTIONS, "shard_size": 4, "shard": "1/3"}
    for made, asked in (("onnxruntime", "openvino"), ("openvino", "onnxruntime")):
        generate(attack, source, tmp_path / made, backend=made, **first)
        with pytest.raises(DataError, match=f"--backend {made}, .* --backend {asked}"):
            generate(attack, source, tmp_path / made, backend=asked, **{**first, "shard": "2/3"})


def test_two_workers_and_a_session_make_the_same_bytes(attack, source, tmp_path):
    options = {**OPTIONS, "shard_size": 4, "backend": "openvino"}
    generate(attack, source, tmp_path / "one", **options)
    generate(attack, source, tmp_path / "two", workers=2, **options)
    with Session.open(attack, backend="openvino", batch_size=4, threads=1) as session:
        given = {**options, "backend": "onnxruntime"}  # the session decides
        generate(None, source, tmp_path / "three", session=session, **given)
    shards = [
        {e["name"]: e["files"] for e in index(tmp_path / name)["shards"]}
        for name in ("one", "two", "three")
    ]
    assert shards[0] == shards[1] == shards[2]


def test_plans_keep_their_hash():
    plain = {
        "artifact": "a", "attack": {}, "image_shape": (3, 4, 4), "classes": 2, "count": 1,
        "seed": 0, "epoch": 0, "batch_size": 1, "shard_size": 1, "format": "npz",
        "labels": "source", "class_labels": None, "resize": None, "crop": None,
        "save_flow": False, "save_float": False, "threads": None, "source": {},
    }  # fmt: skip
    assert set(Plan(**plain).to_dict()) == set(plain)
    assert Plan(**plain, backend="onnxruntime").hash == Plan(**plain).hash
    assert Plan(**plain, backend="openvino").hash != Plan(**plain).hash
    assert Plan(**plain, tf32=False).hash == Plan(**plain).hash != Plan(**plain, tf32=True).hash


def test_on_the_command_line(attack, source, tmp_path):
    def run(*words, to=tmp_path / "out"):
        given = ["generate", *map(str, (attack, source, to)), *words]
        return click.testing.CliRunner().invoke(main, given)

    done = run("--backend", "openvino", "--labels", "predicted", "--format", "npz")
    assert done.exit_code == 0, done.output
    assert index(tmp_path / "out")["plan"]["backend"] == "openvino"
    wrong = run("--backend", "tensorrt")
    assert wrong.exit_code == 2
    assert "'tensorrt' is not one of 'onnxruntime', 'openvino'" in wrong.output
    npz = ("--labels", "predicted", "--format", "npz")
    cuda = run("--backend", "openvino", "--device", "cuda", *npz, to=tmp_path / "new")
    assert cuda.exit_code == 2
    assert "expected auto or cpu with the backend openvino" in cuda.output
