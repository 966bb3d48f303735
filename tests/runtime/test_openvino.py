"""The OpenVINO backend does what ONNX Runtime does, in float32, and says what it cannot."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nets
import numpy as np
import onnx
import pytest
import torch
from onnx import parser
from same_attack import check_attack, check_outcome

from jataug import (
    AttackConfig,
    FlowBudget,
    MissingExtra,
    ModelError,
    PixelBudget,
    RuntimeUnavailable,
    Session,
)
from jataug.artifact import load_artifact, sign
from jataug.export import export_attack
from jataug.runtime import openvino
from jataug.runtime.backends import BACKENDS, engine_type
from jataug.runtime.onnxruntime import Engine as Golden

from .sessions import CONFIG, EVALUATION, images, levels, same

if find_spec("openvino") is None:  # not importorskip: an import of it is reported to a server
    pytest.skip("needs jataug[openvino]", allow_module_level=True)

VECTOR = Path(__file__).resolve().parents[2] / "examples" / "vector"
CASES = {case["name"]: case for case in json.loads((VECTOR / "vector.json").read_text())["cases"]}
CLOSE = 2e-5
"""Largest difference of a loss or a logit, which are of the order of 1 to 10 here."""


def both(path, count=32, **options):
    """Check OpenVINO's result against ONNX Runtime's."""
    given, found = images(count), []
    for backend in ("onnxruntime", "openvino"):
        with Session.open(path, backend=backend, threads=1) as session:
            found.append((session.attack(given, seed=2, **options), session.predict(given)))
            config = session.config
    (golden, logits), (ours, clean) = found
    np.testing.assert_allclose(clean, logits, atol=CLOSE)
    radius = {name: options.get(name) for name in ("flow", "pixel")}
    check_outcome(golden, ours, logits, given, config, **radius)


@pytest.mark.parametrize("config", [CONFIG, EVALUATION], ids=["claim-1", "evaluation"])
def test_every_iteration(tiny_net, exported_attack, config):
    path = exported_attack(tiny_net.path, config)
    with Session.open(path, backend="openvino", threads=1) as session:
        check_attack(tiny_net.module, session, config, images(8), seed=2)


@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_an_iteration_of_the_other_forms(tiny_net, exported_attack, form):
    config = CONFIG.replace(steps=1)
    path = exported_attack(tiny_net.path, config, form=form)
    with Session.open(path, backend="openvino", threads=1) as session:
        check_attack(tiny_net.module, session, config, images(8), seed=2)


@pytest.mark.parametrize("config", [CONFIG, EVALUATION], ids=["claim-1", "evaluation"])
@pytest.mark.parametrize("form", ["step", "loop", "unrolled"])
def test_whole_attack(tiny_net, exported_attack, config, form):
    both(exported_attack(tiny_net.path, config, form=form))


def test_attack_on_the_demo_classifier(demo_classifier, demo_images, exported_attack):
    path = exported_attack(demo_classifier.path, EVALUATION)
    pictures = demo_images[0][:8, :, :, None]
    with Session.open(path, backend="onnxruntime", threads=1) as session:
        golden, golden_logits = session.attack(pictures, seed=1), session.predict(pictures)
    with Session.open(path, backend="openvino", threads=1) as session:
        logits = session.predict(pictures)
        given = demo_classifier.module, session, EVALUATION, pictures
        ours = check_attack(*given, seed=1, labels=golden.label)
    np.testing.assert_allclose(logits, golden_logits, atol=CLOSE)
    assert golden.success.mean() > 0.5
    check_outcome(golden, ours, logits, pictures, EVALUATION)


class Strided(torch.nn.Module):
    """Convolutions of 8 channels to 8: of stride 2, and grouped."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.second = torch.nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.third = torch.nn.Conv2d(8, 8, 5, padding=2, groups=4)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, image):
        hidden = torch.nn.functional.gelu(self.second(torch.sigmoid(self.first(image))))
        return self.head(torch.nn.functional.silu(self.third(hidden)).mean(dim=(2, 3)))


def strided():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Strided().eval()


@pytest.fixture(scope="module")
def strided_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("strided") / "attack.onnx"
    export_attack(strided(), CONFIG, path, example=torch.zeros(1, 3, 16, 16), check=False)
    return path


NETS = {"tiny": lambda: nets.tiny(), "strided": strided, "resnet18": lambda: nets.resnet18()}
SLOW_LAST = ["tiny", "strided", pytest.param("resnet18", marks=pytest.mark.heavy)]


@pytest.mark.parametrize("name", SLOW_LAST)
def test_iterations_of_a_network(name, tmp_path):
    config = AttackConfig(flow=FlowBudget(0.7), pixel=PixelBudget(0.9, "l2"), steps=2)
    side = 32 if name == "resnet18" else 16
    path, example = tmp_path / "attack.onnx", torch.zeros(1, 3, side, side)
    network = NETS[name]()
    export_attack(network, config, path, example=example, check=False)
    given = np.random.default_rng(3).random((2, 3, side, side), np.float32)
    with Session.open(path, backend="openvino", threads=1) as session:
        result = check_attack(network, session, config, given)
    assert np.abs(result.flow).max() > 0.1
    assert np.abs(result.delta).max() > 0.01


@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name in CASES for form in CASES[name]["artifacts"]]
)
def test_published_vector(name, form):
    case = CASES[name]
    tensors = {
        key: np.frombuffer(
            (VECTOR / "vector.bin").read_bytes(), f"<{np.dtype(t['dtype']).str[1:]}",
            int(np.prod(t["shape"])), t["offset"],
        ).reshape(t["shape"])
        for key, t in case["tensors"].items()
    }  # fmt: skip
    with Session.open(VECTOR / case["artifacts"][form], backend="openvino") as session:
        result = session.attack(
            tensors["levels"], indices=np.array(case["indices"]), seed=int(case["seed"]),
            epoch=case["epoch"], flow=np.array(case["flow_radius"], np.float32),
            pixel=np.array(case["pixel_radius"], np.float32),
        )  # fmt: skip
        clean = session.predict(tensors["levels"])
    np.testing.assert_allclose(clean, tensors["clean_logits"], atol=1e-4)
    np.testing.assert_array_equal(result.adversarial, tensors["final_levels"])
    for field in ("flow", "delta", "loss", "logits"):
        wanted = tensors[f"final_{field}"]
        np.testing.assert_allclose(getattr(result, field), wanted, atol=1e-4, err_msg=field)
    assert result.success.tolist() == case["success"]


def test_the_same_bytes_again(path):
    found = []
    for _ in range(2):
        with Session.open(path, backend="openvino", threads=1, batch_size=4) as session:
            found += [session.attack(levels(6), seed=4) for _ in range(2)]
    for other in found[1:]:
        same(found[0], other)


def test_fewer_steps_and_radii(path):
    both(path, steps=1, flow=0.2, pixel=0.01)
    both(path, steps=0)


def test_it_says_what_runs(path):
    with Session.open(path, backend="openvino") as session:
        assert session.providers == ["OpenVINO CPU f32"]
        assert session.backend == "openvino"
    assert openvino.version().startswith("openvino 20")


class Asked(openvino.Engine):
    """OpenVINO in a precision of its own choice."""

    def __init__(self, precision, model, sizes):
        self.precision = precision
        super().__init__(model, sizes)


def test_bfloat16_is_another_result_or_refused(path):
    """What f32 is set for: a processor with bfloat16 would use it."""
    model, _ = load_artifact(path)
    try:
        engine = Asked("bf16", model, {"N": 2, "R": 2})
    except RuntimeUnavailable as error:
        assert "precision: expected bf16" in str(error)  # noqa: PT017  # the processor decides
        return
    feeds = {name: np.full(2, 0.3, np.float32) for name in engine.inputs}
    feeds |= {"image": images(2), "delta": np.zeros_like(images(2))}
    feeds |= {"flow": np.zeros((2, 2, 16, 16), np.float32)}
    feeds |= {"label": np.array([0, 1]), "target": np.array([1, 2])}
    golden = Golden(model, {"N": 2, "R": 2}, "cpu").run(feeds)
    assert np.abs(engine.run(feeds)["logits"] - golden["logits"]).max() > 1e-4


def test_a_precision_that_the_processor_does_not_have(path):
    model, _ = load_artifact(path)
    with pytest.raises(RuntimeUnavailable, match=r"precision: expected f64, .* computes in .*f32"):
        Asked("f64", model, {"N": 2, "R": 2})


TWO_KERNELS = """
<ir_version: 10, opset_import: ["" : 18]>
network (float[2, 8, 8, 8] x) => (float[2, 8, 8, 8] back, float[2, 8, 4, 4] y) {
    y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x, forth)
    z = Tanh (y)
    back = ConvTranspose <kernel_shape = [3, 3], pads = [1, 1, 1, 1], output_padding = [1, 1],
        strides = [2, 2]> (z, own)
}
"""


def test_a_kernel_of_its_own():
    """What every export gives a ConvTranspose; with a shared one OpenVINO's is wrong (see
    tests/runtimes).
    """
    model = parser.parse_model(TWO_KERNELS)
    weight = np.random.default_rng(0).normal(size=(8, 8, 3, 3)).astype(np.float32)
    for name in ("forth", "own"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    x = np.random.default_rng(1).random((2, 8, 8, 8)).astype(np.float32)
    golden, ours = (engine_type(backend)(model, {}).run({"x": x}) for backend in BACKENDS)
    np.testing.assert_allclose(ours["y"], golden["y"], atol=1e-4)
    np.testing.assert_allclose(ours["back"], golden["back"], atol=1e-4)


@pytest.mark.parametrize("name", SLOW_LAST)
def test_no_export_shares_a_kernel(name, tmp_path):
    side = 32 if name == "resnet18" else 16
    path, example = tmp_path / "attack.onnx", torch.zeros(1, 3, side, side)
    export_attack(NETS[name](), CONFIG, path, example=example, check=False)
    model, _ = load_artifact(path)
    readers = {"Conv": set(), "ConvTranspose": set()}
    for node in model.graph.node:
        if node.op_type in readers:
            readers[node.op_type].add(node.input[1])
    assert readers["Conv"]
    assert not readers["Conv"] & readers["ConvTranspose"]


def changed(path, tmp_path, change):
    """An artifact with its graph changed, and signed again."""
    model, manifest = load_artifact(path)
    change(model)
    sign(model, manifest)
    onnx.save(model, tmp_path / "changed.onnx")
    return tmp_path / "changed.onnx"


def test_an_operator_that_it_lacks(path, tmp_path):
    def change(model):
        node = next(node for node in model.graph.node if node.op_type == "Relu")
        node.op_type, node.domain = "Frobnicate", "made.up"
        model.opset_import.append(onnx.helper.make_opsetid("made.up", 1))

    for backend, name in (("openvino", "openvino 20"), ("onnxruntime", "onnxruntime ")):
        with (
            Session.open(changed(path, tmp_path, change), backend=backend) as session,
            pytest.raises(ModelError, match=rf"^{name}.* ?lacks the operator made.up.Frobnicate"),
        ):
            session.predict(images(1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", ["opset", "IR version"])
def test_an_artifact_newer_than_the_runtime(path, tmp_path, backend, what):
    def change(model):
        if what == "opset":
            model.opset_import[0].version = 99
        else:
            model.ir_version = 99

    with (
        Session.open(changed(path, tmp_path, change), backend=backend) as session,
        pytest.raises(
            ModelError, match=rf"takes models up to {what} \d+, and this one has 99; conv"
        ),
    ):
        session.predict(images(1))


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "gpu", ""])
def test_a_device_that_it_does_not_have(path, device):
    with pytest.raises(RuntimeUnavailable, match=f"expected auto or cpu .* got '{device}'"):
        Session.open(path, backend="openvino", device=device)


def test_it_is_not_installed(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with (
        Session.open(path, backend="openvino") as session,
        pytest.raises(MissingExtra, match=r"pip install 'jataug\[openvino\]'"),
    ):
        session.predict(images(1))


def test_nobody_is_told():
    """OpenVINO reports every import to a server; jataug promises that nothing does."""
    code = (
        "import socket, sys\n"
        "def refuse(*args, **options): raise SystemExit(f'network: {args}')\n"
        "socket.getaddrinfo = socket.socket.connect = socket.create_connection = refuse\n"
        "from jataug.runtime.openvino import load\n"
        "core = load().Core()\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')], core)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.startswith("[] <Core"), run.stdout + run.stderr
    assert "network" not in run.stderr
