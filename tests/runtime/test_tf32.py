"""TF32 as an option: what CUDA is asked for, through every layer, and where it is refused.

No GPU is needed: a stand-in for the onnxruntime module says that CUDA is there, notes what it is
asked for and computes on the CPU.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

import jataug
from jataug import DataError, RuntimeUnavailable, Session
from jataug.cli import main
from jataug.evaluation import evaluate
from jataug.generator import generate
from jataug.generator.open_session import Opening
from jataug.runtime import onnxruntime as runtime

from .sessions import images, levels

CLASSIFIER = Path(jataug.__file__).parent / "demo" / "classifier.onnx"
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OrtOnCuda:
    """The onnxruntime module of a machine with CUDA; `asked` holds the providers of each session.

    Args:
        loads: whether the CUDA provider comes up.
    """

    def __init__(self, loads=True):
        self.loads, self.asked = loads, []
        self.OrtValue = SimpleNamespace(
            ortvalue_from_shape_and_type=lambda shape, kind, device, number: (
                onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind, "cpu", 0)
            )
        )

    def __getattr__(self, name):
        return getattr(onnxruntime, name)

    def preload_dlls(self):
        pass

    def get_available_providers(self):
        return [CUDA, CPU]

    def InferenceSession(self, content, options, providers):
        self.asked.append(providers)
        session = onnxruntime.InferenceSession(content, options, providers=[CPU])
        if self.loads:
            session.get_providers = lambda: [CUDA, CPU]
        return session


@pytest.fixture
def cuda(monkeypatch):
    ort = OrtOnCuda()
    monkeypatch.setattr(runtime, "load", lambda: ort)
    return ort


@pytest.mark.parametrize(("options", "use"), [({}, 0), ({"tf32": False}, 0), ({"tf32": True}, 1)])
def test_the_provider_is_asked_for_it(cuda, path, options, use):
    with Session.open(path, device="cuda:1", batch_size=2, **options) as session:
        session.attack(images(2), [0, 1])
        assert session.tf32 == bool(use)
    assert len(cuda.asked) == 2  # the step, and the network that measures
    assert {providers[0][0] for providers in cuda.asked} == {CUDA}
    expected = {"device_id": 1, "use_tf32": use, "enable_cuda_graph": 0}
    assert [p[0][1] for p in cuda.asked] == [expected] * 2


def test_auto_takes_cuda(cuda, path):
    with Session.open(path, tf32=True, batch_size=2) as session:
        session.predict(images(2))
    assert cuda.asked[0][0][1]["use_tf32"] == 1


def test_auto_does_not_fall_back_where_cuda_does_not_load(cuda, path):
    cuda.loads = False
    with (
        Session.open(path, tf32=True, batch_size=2) as session,
        pytest.raises(RuntimeUnavailable, match=r"CUDA did not load .* --device cpu without tf32"),
    ):
        session.predict(images(2))


REFUSED = {
    "cpu": ({"device": "cpu"}, "tf32 needs CUDA, .* 'cpu'"),
    "openvino": ({"backend": "openvino"}, "tf32 needs .* openvino"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_no_tf32_on_a_processor(cuda, path, options, message):
    with pytest.raises(RuntimeUnavailable, match=message) as caught:
        Session.open(path, tf32=True, **options)
    assert "\n" not in str(caught.value)


def test_auto_without_a_cuda_build(path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(RuntimeUnavailable, match=r"tf32 needs CUDA, .* 'auto'"):
        Session.open(path, tf32=True)


def test_a_worker_opens_with_it(cuda, path):
    with Opening(path, 2, "cuda", None, tf32=True).open() as session:
        session.predict(images(2))
    assert cuda.asked[0][0][1]["use_tf32"] == 1


@pytest.fixture
def source(tmp_path):
    np.savez(tmp_path / "x.npz", images=levels(8), labels=np.arange(8) % 10)
    return tmp_path / "x.npz"


def test_a_data_set_says_so_and_goes_on_with_it_alone(cuda, path, source, tmp_path):
    out = tmp_path / "out"
    options = {"batch_size": 4, "shard_size": 4, "threads": 1, "format": "npz", "device": "cuda"}
    generate(path, source, out, tf32=True, shard="1/2", **options)
    assert {providers[0][1]["use_tf32"] for providers in cuda.asked} == {1}
    with pytest.raises(DataError, match="--tf32"):
        generate(path, source, out, shard="2/2", **options)
    generate(path, source, out, tf32=True, shard="2/2", **options)
    assert json.loads((out / "index.json").read_text())["plan"]["tf32"] is True
    assert "--tf32" in (out / "README.md").read_text()
    generate(path, source, tmp_path / "plain", **options)
    assert "tf32" not in json.loads((tmp_path / "plain" / "index.json").read_text())["plan"]


def test_an_evaluation_says_so_and_goes_on_with_it_alone(cuda, tmp_path):
    out, source = tmp_path / "out", CLASSIFIER.parent / "images.npz"
    options = {"attacks": ["pgd:steps=1"], "curves": False, "sanity": False}
    options |= {"device": "cuda", "limit": 4}
    report = evaluate(CLASSIFIER, source, out, tf32=True, **options)
    assert {providers[0][1]["use_tf32"] for providers in cuda.asked} == {1}
    assert report.environment["tf32"] == "on"
    with pytest.raises(DataError, match=r"with --tf32, .* leaves out --tf32"):
        evaluate(CLASSIFIER, source, out, **options)
    plain = evaluate(CLASSIFIER, source, tmp_path / "plain", **options)
    assert "tf32" not in plain.environment
    stored = json.loads((tmp_path / "plain" / "plan.json").read_text())["plan"]["settings"]
    assert "tf32" not in stored


def test_a_torch_model_decides_by_itself(cuda, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with pytest.raises(RuntimeUnavailable, match=r"Sequential: tf32: expected an ONNX model"):
        evaluate(model, CLASSIFIER.parent / "images.npz", tmp_path / "out", tf32=True, limit=4)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_on_the_command_line(path, source, tmp_path, monkeypatch, command):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    out = str(tmp_path / "out")
    words = {
        "generate": ["generate", str(path), str(source), out, "--tf32"],
        "evaluate": ["evaluate", str(CLASSIFIER), str(source), "-o", out, "--tf32"],
    }[command]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "tf32 needs CUDA" in done.output
    assert not (tmp_path / "out").exists()
