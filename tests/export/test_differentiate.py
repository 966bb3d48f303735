"""The engine: whole models, the ways their weights come, what is refused, and torch's gradients."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from jataug.errors import ModelError, UnsupportedOperator
from jataug.export import differentiate
from jataug.export.rules import table

from .checking import normal, on_runtime

WEIGHTS = {"w": normal(4, 3, 3, 3, seed=1), "b": normal(4, seed=2), "v": normal(4, 5, seed=3)}
WEIGHTS = {name: array.astype(np.float32) for name, array in WEIGHTS.items()}
NODES = [
    helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, name="first conv"),
    helper.make_node("Relu", ["c"], ["r"], name="first relu"),
    helper.make_node("GlobalAveragePool", ["r"], ["p"]),
    helper.make_node("Flatten", ["p"], ["f"]),
    helper.make_node("MatMul", ["f", "v"], ["y"]),
]


def model(nodes, inputs=(("x", 1, ["batch", 3, 6, 6]),), outputs=("y",), weights=None, opset=18):
    arrays = WEIGHTS if weights is None else weights
    results = []
    for name in outputs:
        results.append(onnx.ValueInfoProto(name=name))
        results[-1].type.tensor_type.elem_type = 1
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(*given) for given in inputs],
        results,
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def signature(values):
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        found[value.name] = [d.dim_param or d.dim_value for d in tensor.shape.dim]
    return found


IMAGE, SEED = (normal(*s, seed=9).astype(np.float32) for s in ((2, 3, 6, 6), (2, 5)))


def gradient(proto, image=IMAGE, seed=SEED, **options):
    vjp = differentiate(proto, **options)
    onnx.checker.check_model(vjp, full_check=True)
    return on_runtime(vjp, {"x": image, "grad_y": seed})[-1]


def by_torch():
    leaf = torch.tensor(IMAGE, requires_grad=True)
    w, b, v = (torch.tensor(WEIGHTS[name]) for name in "wbv")
    hidden = torch.nn.functional.conv2d(leaf, w, b, padding=1).relu().mean((2, 3))
    (hidden @ v).backward(torch.tensor(SEED))
    return leaf.grad.numpy()


def test_the_symbolic_batch_is_kept():
    vjp = differentiate(model(NODES))
    assert signature(vjp.graph.input) == {"x": ["N", 3, 6, 6], "grad_y": ["N", 5]}
    assert signature(vjp.graph.output) == {"y": ["N", 5], "grad_x": ["N", 3, 6, 6]}
    onnx.checker.check_model(vjp, full_check=True)
    for size in (1, 4):
        feeds = {
            "x": np.ones((size, 3, 6, 6), np.float32),
            "grad_y": np.ones((size, 5), np.float32),
        }
        assert on_runtime(vjp, feeds)[1].shape == (size, 3, 6, 6)


def test_the_model_is_not_changed():
    proto = model(NODES)
    before = proto.SerializeToString()
    differentiate(proto)
    assert proto.SerializeToString() == before


def as_constant_nodes():
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
        for name, array in WEIGHTS.items()
    ]
    return model([*constants, *NODES], weights={})


def as_inputs():
    """Weights listed among the inputs, as files before IR version 4 have them."""
    listed = [(name, 1, array.shape) for name, array in WEIGHTS.items()]
    return model(NODES, inputs=[("x", 1, ["batch", 3, 6, 6]), *listed])


def through_identities():
    nodes = [helper.make_node("Identity", [name], [f"{name}_same"]) for name in WEIGHTS]
    renamed = []
    for node in NODES:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [f"{n}_same" if n in WEIGHTS else n for n in node.input]
        renamed.append(copy)
    return model([*nodes, *renamed])


@pytest.mark.parametrize(
    "make", [lambda: model(NODES), as_constant_nodes, as_inputs, through_identities],
    ids=["initializers", "Constant nodes", "inputs", "identities"],
)  # fmt: skip
def test_weights_come_in_every_way(make):
    np.testing.assert_allclose(gradient(make()), by_torch(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_batch(batch):
    fixed = model(NODES, inputs=[("x", 1, [batch, 3, 6, 6])])
    found = gradient(fixed, IMAGE[:batch], SEED[:batch])
    np.testing.assert_allclose(found, by_torch()[:batch], rtol=1e-4, atol=1e-6)


def test_a_batch_that_a_model_holds_is_freed():
    flat = helper.make_node("Reshape", ["p", "two"], ["f"])
    weights = {**WEIGHTS, "two": np.array([2, 4])}
    held = model([*NODES[:3], flat, NODES[4]], [("x", 1, [2, 3, 6, 6])], weights=weights)
    assert signature(differentiate(held).graph.input)["x"] == ["N", 3, 6, 6]
    np.testing.assert_allclose(gradient(held), by_torch(), rtol=1e-4, atol=1e-6)


def test_a_model_whose_images_mix_stays_at_its_batch():
    flat = helper.make_node("Reshape", ["p", "two"], ["f"])
    mean = helper.make_node("ReduceMean", ["f"], ["mean"], axes=[0])
    mixed = helper.make_node("Add", ["f", "mean"], ["mixed"])
    product = helper.make_node("MatMul", ["mixed", "v"], ["y"])
    weights = {**WEIGHTS, "two": np.array([2, 4])}
    nodes = [*NODES[:3], flat, mean, mixed, product]
    held = model(nodes, [("x", 1, [2, 3, 6, 6])], weights=weights, opset=13)
    assert signature(differentiate(held).graph.input)["x"] == [2, 3, 6, 6]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_models_of_every_age(opset):
    vjp = differentiate(model(NODES, opset=opset))
    assert [(e.domain, e.version) for e in vjp.opset_import] == [("", max(opset, 18))]
    assert vjp.ir_version <= 10
    found = gradient(model(NODES, opset=opset))
    np.testing.assert_allclose(found, by_torch(), rtol=1e-4, atol=1e-6)


def test_shared_values_and_flat_side_paths():
    """y = x * relu(x) + floor(x) * x + shape-only paths; the derivative of floor is zero."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Mul", ["x", "r"], ["xr"]),
        helper.make_node("Floor", ["x"], ["floor"]),
        helper.make_node("Mul", ["floor", "x"], ["fx"]),
        helper.make_node("Add", ["xr", "fx"], ["sum"]),
        helper.make_node("Greater", ["x", "zero"], ["mask"]),
        helper.make_node("Cast", ["mask"], ["m"], to=1),
        helper.make_node("Mul", ["sum", "m"], ["y"]),
    ]
    proto = model(nodes, [("x", 1, ["batch", 4])], weights={"zero": np.float32([0])})
    x, seed = (normal(3, 4, seed=i).astype(np.float32) for i in (1, 2))
    expected = np.where(x > 0, 2 * x + np.floor(x), 0) * seed
    np.testing.assert_allclose(gradient(proto, x, seed), expected, rtol=1e-5)


def test_one_of_two_outputs():
    nodes = [*NODES, helper.make_node("Softmax", ["y"], ["q"])]
    for name, order in (("y", ("q", "y")), ("q", ("q", "y")), ("y", ("y", "q"))):
        vjp = differentiate(model(nodes, outputs=order), of=name)
        onnx.checker.check_model(vjp, full_check=True)
        assert f"grad_{name}" in signature(vjp.graph.input)
        feeds = {"x": IMAGE, f"grad_{name}": SEED}
        names = [value.name for value in vjp.graph.output]
        found = dict(zip(names, on_runtime(vjp, feeds), strict=True))
        if name == "y":
            np.testing.assert_allclose(found["grad_x"], by_torch(), rtol=1e-4, atol=1e-6)
    with pytest.raises(ModelError, match=r"has 2 outputs: y.*, q.*--of"):
        differentiate(model(nodes, outputs=("y", "q")))
    with pytest.raises(ModelError, match="'z'"):
        differentiate(model(nodes), of="z")


TWO = [("x", 1, ["batch", 3, 6, 6]), ("z", 1, ["batch", 3, 6, 6])]


def test_several_inputs_are_named():
    with pytest.raises(ModelError, match=r"x \(.*\), z \("):
        differentiate(model([helper.make_node("Add", ["x", "z"], ["y"])], TWO))
    with pytest.raises(ModelError, match="more than an image: inputs z"):
        differentiate(model([helper.make_node("Add", ["x", "z"], ["y"])], TWO), wrt="x")


def test_a_missing_rule_names_op_domain_opset_and_node():
    nodes = [NODES[0], helper.make_node("LpNormalization", ["c"], ["n"], name="odd one")]
    nodes += [helper.make_node("GlobalAveragePool", ["n"], ["y"])]
    pattern = r"LpNormalization \(domain ai\.onnx, opset 18, node 'odd one'\)"
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(table._RULES, ("", "LpNormalization"), raising=False)
        with pytest.raises(UnsupportedOperator, match=pattern) as caught:
            differentiate(model(nodes))
    assert "\n" not in str(caught.value)


def test_a_missing_rule_off_the_path_is_no_obstacle():
    side = [
        helper.make_node("LSTM", ["sequence", "weights", "recurrence"], ["hidden"], hidden_size=2),
        helper.make_node("ReduceSum", ["hidden"], ["total"], keepdims=0),
        helper.make_node("Mul", ["y0", "total"], ["y"]),
    ]
    inner = [*NODES[:4], helper.make_node("MatMul", ["f", "v"], ["y0"])]
    weights = {
        **WEIGHTS,
        "sequence": np.ones((1, 1, 3), np.float32),
        "weights": np.ones((1, 8, 3), np.float32),
        "recurrence": np.ones((1, 8, 2), np.float32),
    }
    try:
        found = gradient(model([*inner, *side], weights=weights))
    except ModelError as error:  # the constant cannot be folded by onnx's own evaluator
        pytest.fail(str(error))
    ratio = found / np.where(by_torch() == 0, 1, by_torch())
    np.testing.assert_allclose(ratio[by_torch() != 0], ratio.max(), rtol=1e-3)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Floor", ["x"], ["y"])],
        [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Cast", ["s"], ["y"], to=1)],
        [helper.make_node("MatMul", ["v", "v5"], ["y"])],
    ],
    ids=["flat", "shape", "constant"],
)
def test_an_output_that_does_not_depend_on_the_image(nodes):
    weights = {**WEIGHTS, "v5": normal(5, 3).astype(np.float32)}
    with pytest.raises(ModelError, match=r"do not depend on the image|is 0 everywhere"):
        differentiate(model(nodes, weights=weights))


def test_training_forms_are_refused():
    norm = helper.make_node(
        "BatchNormalization", ["c", "b", "b", "b", "b"], ["n", "m", "s"], training_mode=1
    )
    drop = helper.make_node("Dropout", ["c", "half", "yes"], ["n"])
    last = helper.make_node("GlobalAveragePool", ["n"], ["y"])
    weights = {**WEIGHTS, "half": np.float32(0.5), "yes": np.array(True)}
    for node in (norm, drop):
        with pytest.raises(UnsupportedOperator, match=r"training form.*eval mode"):
            differentiate(model([NODES[0], node, last], weights=weights))
