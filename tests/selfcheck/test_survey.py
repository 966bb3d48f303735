"""`jataug runtimes` finds a runtime that is silently wrong: planted faults exit 1."""

import json
from dataclasses import replace
from importlib.util import find_spec
from inspect import signature

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import numpy_helper

from jataug import ArtifactError, AttackConfig, FlowBudget, PixelBudget, RuntimeUnavailable
from jataug.artifact import load_artifact, sign
from jataug.cli import main
from jataug.export import export_attack
from jataug.runtime import onnxruntime, openvino
from jataug.selfcheck import candidates, survey
from jataug.selfcheck import deviation as difference

CONFIG = AttackConfig(flow=FlowBudget(0.7), pixel=PixelBudget("8/255"), steps=3)
PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


class Net(torch.nn.Module):
    """Its convolution of stride 2 has as many channels in as out."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.second = torch.nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, image):
        hidden = torch.sigmoid(self.second(torch.sigmoid(self.first(image))))
        return 5 * self.head(hidden.mean(dim=(2, 3)))


def export(path, config=CONFIG, form="step"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net = Net().eval()
    export_attack(net, config, path, example=torch.zeros(1, 3, 12, 12), check=False, form=form)
    return path


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return export(tmp_path_factory.mktemp("artifact") / "attack.onnx")


# Before click 8.2 standard output is kept apart on request only.
APART = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}


def run(*words, **runner):
    return CliRunner(**runner).invoke(main, ["runtimes", *map(str, words)])


def planted(monkeypatch, fault, name="onnxruntime"):
    """Put a fault into a runtime: fault(model, run) -> another run."""
    module = {"onnxruntime": onnxruntime, "openvino": openvino}[name]
    healthy = module.Engine

    class Faulty(healthy):
        def __init__(self, model, *args):
            super().__init__(model, *args)
            self.remade = lambda other: healthy(other, *args).run
            self.model = model

        def run(self, feeds):
            return fault(self.model, super().run, self.remade, feeds)

    monkeypatch.setattr(module, "Engine", Faulty)


def with_weights(change):
    """A fault: the runtime computes with other kernels."""

    def fault(model, run, remade, feeds):
        other = onnx.ModelProto()
        other.CopyFrom(model)
        nodes = [node for node in nodes_of(other.graph) if node.op_type in PRODUCTS]
        for tensor in other.graph.initializer:
            for node in nodes:
                if tensor.name in node.input[1:2]:
                    array = change(node, numpy_helper.to_array(tensor))
                    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
                    break
        return remade(other)(feeds)

    return fault


def nodes_of(graph):
    """Those of loop bodies too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes_of(attribute.g)


def rounded(bits):
    """Kernels with a shorter mantissa: 10 bits are TF32's, 7 bfloat16's."""

    def change(node, array):
        step = 1 << (23 - bits)
        words = np.ascontiguousarray(array).view(np.uint32) + np.uint32(step // 2)
        return (words & ~np.uint32(step - 1)).view(np.float32)

    return with_weights(change)


def not_flipped(node, array):
    backward = node.op_type == "Conv" and "flipped" in node.input[1]
    return np.ascontiguousarray(array[:, :, ::-1, ::-1]) if backward else array


def swapped(node, array):
    backward = node.op_type == "ConvTranspose"
    return np.ascontiguousarray(array.swapaxes(0, 1)) if backward else array


def changed(**changes):
    """A fault: some outputs come out different."""

    def fault(model, run, remade, feeds):
        found = run(feeds)
        return {**found, **{name: change(found[name], feeds) for name, change in changes.items()}}

    return fault


FAULTS = {
    "TF32": rounded(10),
    "bfloat16": rounded(7),
    "the backward kernel is not flipped": with_weights(not_flipped),
    "one kernel for both, read one way": with_weights(swapped),
    "the flow moves the other way": changed(
        next_flow=lambda flow, feeds: 2 * feeds["flow"] - flow,
    ),
    "the perturbation moves the other way": changed(
        next_delta=lambda delta, feeds: 2 * feeds["delta"] - delta,
    ),
    "a tenth of a pixel's worth": changed(next_flow=lambda flow, feeds: flow + 0.01),
    "no number": changed(logits=lambda logits, feeds: np.where(logits > 0, np.nan, logits)),
    "no number in a state": changed(next_delta=lambda delta, feeds: delta * np.nan),
    "one image's loss": changed(loss=lambda loss, feeds: loss + np.float32([0, 1e-3])),
    "the batch is lost": changed(logits=lambda logits, feeds: logits[:1]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault(artifact, monkeypatch, name):
    planted(monkeypatch, FAULTS[name])
    found = run(artifact, "--only", "CPUExecutionProvider")
    assert found.exit_code == 1, found.output
    assert "wrong results on onnxruntime CPUExecutionProvider" in found.output
    assert len(found.output.strip().splitlines()) == 6


def test_no_fault(artifact):
    found = run(artifact)
    assert found.exit_code == 0, found.output
    assert "wrong" not in found.output
    rows = survey(artifact).rows
    golden = next(row for row in rows if row.provider == "CPUExecutionProvider")
    assert golden.status == "right"
    assert golden.values < 2e-6
    assert golden.milliseconds > 0


needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs jataug[openvino]")


@needs_openvino
def test_openvino_in_its_own_precision(artifact, monkeypatch):
    monkeypatch.setattr(openvino.Engine, "precision", "bf16")
    (row,) = survey(artifact, ["openvino"]).rows if has_bfloat16() else [None]
    if row is None:
        with pytest.raises(RuntimeUnavailable, match="precision: expected bf16"):
            survey(artifact, ["openvino"])
        return
    assert row.status == "wrong"
    assert run(artifact, "--only", "openvino").exit_code == 1


def has_bfloat16():
    return "BF16" in openvino.load().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@needs_openvino
def test_openvino_and_a_kernel_that_two_convolutions_share(artifact, tmp_path):
    """Its defect: the kernel is laid out for one of them; jataug exports two."""
    model, manifest = load_artifact(artifact)
    for node in model.graph.node:
        if node.op_type == "ConvTranspose":
            assert node.input[1] == "second.weight_transposed_kernel"
            node.input[1] = "second.weight"
    sign(model, manifest)
    onnx.save(model, tmp_path / "shared.onnx")
    rows = {row.runtime: row for row in survey(tmp_path / "shared.onnx").rows}
    assert rows["onnxruntime"].status == "right"
    if openvino.version() > "openvino 2026.4.1" and rows["openvino"].status == "right":
        pytest.skip(f"{openvino.version()} has the defect no more")
    assert rows["openvino"].status == "wrong"
    assert rows["openvino"].values < 2e-5  # loss and logits do not show it
    assert rows["openvino"].moved > 0.1
    found = run(tmp_path / "shared.onnx")
    assert found.exit_code == 1
    assert "Error: wrong results on openvino CPU f32; do not use it" in found.output


BACKWARD = ("the backward kernel is not flipped", "one kernel for both, read one way")


@pytest.mark.parametrize("form", ["loop", "unrolled"])
@pytest.mark.parametrize("name", [*BACKWARD, "TF32", "no number in a state"])
def test_a_planted_fault_in_several_iterations(tmp_path, monkeypatch, form, name):
    path = export(tmp_path / "attack.onnx", CONFIG.replace(keep="best"), form)
    found = survey(path, ["onnxruntime"])
    assert found.ok
    assert found.rows[0].moved < 0.01
    planted(monkeypatch, FAULTS[name])
    assert not survey(path, ["onnxruntime"]).ok


def test_json(artifact, monkeypatch):
    words = (artifact, "--json", "--only", "onnxruntime", "--threads", "1")
    healthy = run(*words, **APART)
    assert healthy.exit_code == 0
    found = json.loads(healthy.stdout)
    assert found["ok"] is True
    assert [row["status"] for row in found["rows"]] == ["right"]
    assert found["rows"][0]["version"] == onnxruntime.load().__version__
    planted(monkeypatch, FAULTS["TF32"])
    wrong = run(*words, **APART)
    assert wrong.exit_code == 1
    found = json.loads(wrong.stdout)
    assert found["ok"] is False
    assert found["rows"][0]["values"] > found["values"]


def lacking(artifact, tmp_path):
    """An artifact with an operator that nothing has."""
    model, manifest = load_artifact(artifact)
    node = next(node for node in model.graph.node if node.op_type == "Sigmoid")
    node.op_type, node.domain = "Frobnicate", "made.up"
    model.opset_import.append(onnx.helper.make_opsetid("made.up", 1))
    sign(model, manifest)
    onnx.save(model, tmp_path / "lacking.onnx")
    return tmp_path / "lacking.onnx"


def test_no_golden_result(artifact, tmp_path):
    found = run(lacking(artifact, tmp_path))
    assert found.exit_code == 2
    assert "lacks the operator made.up.Frobnicate" in found.output
    assert len(found.output.strip().splitlines()) == 1


@pytest.mark.skipif(find_spec("tract") is None, reason="needs pip install tract")
def test_tract_has_no_loop_and_runs_the_other_forms(tmp_path):
    for form, status in (("step", "right"), ("unrolled", "right"), ("loop", "refused")):
        path = export(tmp_path / f"{form}.onnx", form=form)
        (row,) = survey(path, ["tract"]).rows
        assert row.status == status, row
        assert run(path).exit_code == 0
    assert "lacks the operator Loop" in row.reason
    assert "--form step or --form unrolled" in row.reason


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_a_provider_that_is_listed_and_does_not_load(artifact, monkeypatch, provider):
    ort = onnxruntime.load()
    if provider in ort.get_available_providers():
        pytest.skip(f"{provider} is really here")
    listed = [provider, "AzureExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: listed)
    found = run(artifact, "--json")
    assert found.exit_code == 0
    rows = {row["provider"]: row for row in json.loads(found.stdout)["rows"]}
    assert rows[provider]["status"] == "not loaded"
    assert "did not load" in rows[provider]["reason"]
    assert rows["CPUExecutionProvider"]["status"] == "right"
    assert "AzureExecutionProvider" not in rows
    asked = run(artifact, "--only", provider)
    assert asked.exit_code == 2
    assert asked.output.count("\n") == 1
    assert f"onnxruntime {provider}:" in asked.output


def test_what_is_not_installed(artifact, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    rows = {row.runtime: row for row in survey(artifact).rows}
    assert rows["openvino"].status == "not installed"
    assert rows["openvino"].version is None
    found = run(artifact, "--only", "openvino")
    assert found.exit_code == 2
    assert "openvino CPU f32: not installed" in found.output


def test_without_onnxruntime_the_reference_is_golden(artifact, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    found = survey(artifact)
    assert found.golden.endswith("reference evaluator")
    assert {row.status for row in found.rows if row.runtime == "onnxruntime"} == {"not installed"}
    assert found.ok


@pytest.mark.parametrize("name", ["tensorrt", ""])
def test_an_unknown_runtime(artifact, name):
    found = run(artifact, "--only", name)
    assert found.exit_code == 2
    assert f"got {name!r}" in found.output


def test_no_artifact(tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    for path in (tmp_path / "none.onnx", tmp_path / "text.onnx"):
        found = run(path)
        assert found.exit_code == 2
        assert str(path) in found.output
        assert found.output.count("\n") == 1


def test_an_artifact_without_weights(artifact, tmp_path):
    model, manifest = load_artifact(artifact)
    tensor = model.graph.initializer[0]
    value = onnx.helper.make_tensor_value_info("weights/a", tensor.data_type, tensor.dims)
    model.graph.input.append(value)
    sign(model, replace(manifest, weights=("weights/a",)))
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(ArtifactError, match="expected an artifact with its weights inside"):
        survey(tmp_path / "bare.onnx")


@pytest.mark.parametrize(
    "options",
    [
        {"flow": FlowBudget(0)},
        {"pixel": PixelBudget(0)},
        {"pixel": PixelBudget(0.7, "l2"), "flow": FlowBudget(1.2, "linf")},
        {"start": "zero", "steps": 0},
    ],
)
def test_other_attacks(options, tmp_path, monkeypatch):
    path = export(tmp_path / "attack.onnx", CONFIG.replace(**options))
    assert survey(path).ok
    planted(monkeypatch, FAULTS["TF32"])
    assert not survey(path).ok


def test_the_demo_without_an_artifact():
    found = run("--only", "onnxruntime")
    assert found.exit_code == 0, found.output
    assert "right" in found.output


def test_a_candidate_that_crashes(artifact):
    def crash(model, sizes, threads):
        raise ZeroDivisionError("the runtime\nfell over")

    def found(model):
        return [replace(candidates.candidates(model)[0], compile=crash)]

    (row,) = survey(artifact, found=found).rows
    assert (row.status, row.reason) == ("refused", "the runtime fell over")


def test_difference_is_relative_to_large_logits(artifact):
    _, manifest = load_artifact(artifact)
    state = np.zeros((2, 3, 4, 4))
    golden = {"loss": np.ones(2), "logits": np.full((2, 4), 100.0)}
    golden |= {"next_flow": state[:, :2], "next_delta": state}
    near = {**golden, "logits": golden["logits"] + 1e-3}
    assert difference.difference(near, golden, manifest, None).values == pytest.approx(1e-5)
    both = {**golden, "logits": golden["logits"] * np.nan}
    assert difference.difference(both, both, manifest, None).values == 0
    assert difference.difference(both, golden, manifest, None).values == np.inf
