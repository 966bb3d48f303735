"""The artifact's contract, and that its three forms are the same attack."""

import numpy as np
import onnx
import pytest

from jataug import AttackConfig, FlowBudget, PixelBudget, Session
from jataug.config import PRESETS
from jataug.export import export_attack

from .building import artifact, one_call, start

BUDGETS = {"flow": FlowBudget(0.7), "pixel": PixelBudget("16/255")}
OFF = {"flow": FlowBudget(0), "pixel": PixelBudget(0)}
BRANCHES = {"both": {}, "flow": {"pixel": OFF["pixel"]}, "pixel": {"flow": OFF["flow"]}}
IMAGE, FLOW, BATCH, RADII = ("N", 3, 16, 16), ("N", 2, 16, 16), ("N",), ("R",)
INPUTS = {
    "image": ("FLOAT", IMAGE),
    "label": ("INT64", BATCH),
    "target": ("INT64", BATCH),
    "flow": ("FLOAT", FLOW),
    "delta": ("FLOAT", IMAGE),
    "flow_radius": ("FLOAT", RADII),
    "pixel_radius": ("FLOAT", RADII),
    "flow_step": ("FLOAT", RADII),
    "pixel_step": ("FLOAT", RADII),
}
OUTPUTS = {
    "adversarial": ("FLOAT", IMAGE),
    "next_flow": ("FLOAT", FLOW),
    "next_delta": ("FLOAT", IMAGE),
    "loss": ("FLOAT", BATCH),
    "logits": ("FLOAT", ("N", 10)),
}
GONE = {
    "both": set(),
    "flow": {"delta", "pixel_radius", "pixel_step", "next_delta"},
    "pixel": {"flow", "flow_radius", "flow_step", "next_flow"},
}
FORMS = ("step", "loop", "unrolled")
CLAIMS = {
    "claim-1": PRESETS["claim-1"],
    "claim-8": PRESETS["claim-8"],
    "claim-12": {**PRESETS["claim-8"], "flow_objective": "truth"},
}
STORED = ("adversarial", "exact", "flow", "delta")


def config(**options):
    return AttackConfig(**{**BUDGETS, "steps": 3, **options})


def signature(values):
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        sizes = (d.dim_param or d.dim_value for d in tensor.shape.dim)
        found[value.name] = (onnx.TensorProto.DataType.Name(tensor.elem_type), tuple(sizes))
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("branches", BRANCHES)
def test_contract(tiny_net, form, branches):
    model, manifest = artifact(tiny_net.path, config(**BRANCHES[branches]), form)
    inputs = {name: s for name, s in INPUTS.items() if name not in GONE[branches]}
    outputs = {name: s for name, s in OUTPUTS.items() if name not in GONE[branches]}
    assert list(signature(model.graph.input).items()) == list(inputs.items())
    assert signature(model.graph.output) == outputs
    assert manifest.inputs == list(inputs)
    assert not {tensor.name for tensor in model.graph.initializer} & set(inputs)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert model.ir_version <= 10
    assert {node.domain for node in nodes(model.graph)} == {""}
    assert not {"ScatterND", "ScatterElements", "GridSample"} & {
        node.op_type for node in nodes(model.graph)
    }
    onnx.checker.check_model(model, full_check=True)


def nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes(attribute.g)


def test_no_kernel_is_shared_between_conv_and_its_transpose(tiny_net):
    """OpenVINO 2026.4 returns wrong gradients where one is."""
    model, _ = artifact(tiny_net.path, config())
    kernels = {
        kind: {node.input[1] for node in nodes(model.graph) if node.op_type == kind}
        for kind in ("Conv", "ConvTranspose")
    }
    assert kernels["ConvTranspose"]
    assert not kernels["Conv"] & kernels["ConvTranspose"]


def test_weights_are_stored_once(tiny_net):
    one, _ = artifact(tiny_net.path, config(flow=OFF["flow"]))
    both, _ = artifact(tiny_net.path, config(steps=9), "unrolled")
    size = [sum(len(t.raw_data) for t in m.graph.initializer) for m in (one, both)]
    assert size[1] < 1.5 * size[0]


SMOOTH = {"flow": FlowBudget(0.7), "pixel": PixelBudget(1.0, "l2")}
"""On a linear network and without signs nothing in an attack jumps, but for flows at whole pixels:
whole attacks then differ by what rounding makes of them, however it is done.
"""


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """A classifier of images (N, 3, 16, 16) whose gradient is the same everywhere."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]>
        network (float[N, 3, 16, 16] image) => (float[N, 10] logits) {
            flat = Flatten (image)
            logits = MatMul (flat, weight)
        }""")
    weight = np.random.default_rng(4).normal(0, 0.05, (768, 10)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    path = tmp_path_factory.mktemp("linear") / "model.onnx"
    onnx.save(model, path)
    return path


def check_states(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        close = 1e-3 if array.dtype == np.float16 else 2e-4 if "flow" in name else 2e-5
        wide = [a.astype(np.float64) for a in (found[name], array)]
        np.testing.assert_allclose(*wide, rtol=0, atol=close, err_msg=name)


@pytest.mark.parametrize("branches", BRANCHES)
@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("form", ["loop", "unrolled"])
def test_a_whole_attack_equals_its_steps(linear, form, claim, branches):
    chosen = AttackConfig(**CLAIMS[claim], **SMOOTH, steps=3).replace(**BRANCHES[branches])
    step, manifest = artifact(linear, chosen)
    whole, _ = artifact(linear, chosen, form)
    feeds = start(manifest, 4)
    expected = state = one_call(step, feeds)
    for _ in range(2):
        moved = {name: state[f"next_{name}"] for name in ("flow", "delta") if name in feeds}
        assert any(np.abs(array - feeds[name]).max() > 0.01 for name, array in moved.items())
        state = one_call(step, {**feeds, **moved})
    found = one_call(whole, feeds)
    states = [n for n in ("adversarial", "next_flow", "next_delta") if n in found]
    check_states({n: found[n] for n in states}, {n: state[n] for n in states})
    for name in ("loss", "logits"):  # of the incoming state
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["loop", "unrolled"])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_session_gets_the_same_images_from_every_form(linear, tmp_path, form, keep):
    # Steps too long: the best iterate is not the last.
    chosen = AttackConfig.preset("evaluation", **SMOOTH, steps=4, flow_step=2, pixel_step=2.5)
    chosen = chosen.replace(keep=keep)
    images = start(artifact(linear, chosen)[1], 8)["image"]
    results = []
    for name in ("step", form):
        export_attack(linear, chosen, tmp_path / f"{name}.onnx", form=name, check=False)
        with Session.open(tmp_path / f"{name}.onnx", device="cpu") as session:
            results.append(session.attack(images))
    by_step, whole = ({n: getattr(r, n) for n in STORED} for r in results)
    check_states(whole, by_step)
    np.testing.assert_allclose(results[1].loss, results[0].loss, rtol=1e-4)


def test_the_best_iterate_is_not_the_last(tiny_net, tmp_path):
    """With steps far too large the last iterate is rarely the best: else `keep` tests nothing."""
    chosen = AttackConfig.preset("evaluation", **BUDGETS, steps=4, flow_step=2, pixel_step=0.1)
    images = start(artifact(tiny_net.path, chosen)[1], 16)["image"]
    loss, wrong = {}, {}
    for keep in ("last", "best"):
        path = tmp_path / f"{keep}.onnx"
        export_attack(tiny_net.path, chosen.replace(keep=keep), path, check=False)
        with Session.open(path, device="cpu") as session:
            result = session.attack(images)
        loss[keep], wrong[keep] = result.loss, result.success
    kept = wrong["best"] == wrong["last"]
    assert (loss["best"] >= loss["last"] - 1e-3)[kept].all()
    assert (loss["best"] > loss["last"] + 1e-3).any()
    assert (wrong["best"] >= wrong["last"]).all()


def test_the_flow_radius_is_clamped_to_the_maximum(tiny_net):
    model, manifest = artifact(tiny_net.path, config(), max_flow=0.9)
    feeds = start(manifest, 2)
    for name in ("flow_radius", "flow_step"):
        feeds[name] = np.full(2, 5, np.float32)
    length = np.linalg.norm(one_call(model, feeds)["next_flow"], axis=1)
    assert length.max() == pytest.approx(0.9, rel=1e-6)


def test_one_radius_serves_the_whole_batch(tiny_net):
    model, manifest = artifact(tiny_net.path, config())
    feeds = start(manifest, 3)
    single = {name: a[:1] if name.endswith(("radius", "step")) else a for name, a in feeds.items()}
    several, one = one_call(model, feeds), one_call(model, single)
    for name, array in several.items():
        np.testing.assert_array_equal(one[name], array, err_msg=name)
