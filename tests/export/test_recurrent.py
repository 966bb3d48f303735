"""Recurrent ops, written out in time: the forward pass is ONNX Runtime's, gradients are those of
differences and of torch.
"""

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from jataug.errors import ModelError, UnsupportedOperator
from jataug.export import differentiate

from .checking import normal, on_onnx, on_runtime

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, BATCH, INPUT, HIDDEN = 3, 2, 3, 4


def weights(op_type, directions=1, peepholes=False):
    gates = GATES[op_type] * HIDDEN
    found = {
        "W": normal(directions, gates, INPUT, seed=1) / 2,
        "R": normal(directions, gates, HIDDEN, seed=2) / 2,
        "B": normal(directions, 2 * gates, seed=3) / 2,
    }
    if peepholes:
        found["P"] = normal(directions, 3 * HIDDEN, seed=4) / 2
    return found


def model(op_type, directions=1, output=0, given="XWRB", dtype=np.float64, batch="N", **attributes):
    """A recurrent node over an image (batch, INPUT, 1, STEPS), as recognizers have them."""
    arrays = weights(op_type, directions, "P" in given)
    start = (directions, BATCH, HIDDEN)
    arrays |= {"h": normal(*start, seed=5) / 2, "c": normal(*start, seed=6) / 2}
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    arrays["one"] = np.array([2])
    names = [*("X", "W", "R"), *(n if n in given else "" for n in ("B", "s", "h", "c", "P"))]
    names = names[: {"LSTM": 8}.get(op_type, 6)]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h", "Y_c"][: 2 + (op_type == "LSTM")]
    outputs = [name if i == output else "" for i, name in enumerate(outputs)]
    nodes = [
        helper.make_node("Squeeze", ["x", "one"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["X"], perm=[2, 0, 1]),
        helper.make_node(op_type, names, outputs, hidden_size=HIDDEN, **attributes),
    ]
    if output == 0:
        nodes.append(helper.make_node("Transpose", ["Y"], ["y"], perm=[2, 0, 1, 3]))
    else:
        nodes.append(helper.make_node("Transpose", [outputs[output]], ["y"], perm=[1, 0, 2]))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "recurrent",
        [helper.make_tensor_value_info("x", kind, [batch, INPUT, 1, STEPS])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


CASES = [
    *(
        (op_type, {"output": output})
        for op_type, outputs in (("RNN", 2), ("GRU", 2), ("LSTM", 3))
        for output in range(outputs)
    ),
    *((op_type, {"directions": 2, "direction": "bidirectional"}) for op_type in GATES),
    *((op_type, {"direction": "reverse"}) for op_type in GATES),
    *((op_type, {"direction": "reverse", "output": 1}) for op_type in GATES),
    *((op_type, {"given": "XWR"}) for op_type in GATES),
    *((op_type, {"clip": 0.1}) for op_type in GATES),
    ("RNN", {"given": "XWRBh", "batch": BATCH}),
    ("GRU", {"given": "XWRBh", "batch": BATCH, "linear_before_reset": 1}),
    ("GRU", {"given": "XWR", "linear_before_reset": 1}),
    ("LSTM", {"given": "XWRBhc", "batch": BATCH}),
    ("LSTM", {"given": "XWRBhcP", "batch": BATCH, "output": 2}),
    ("LSTM", {"given": "XWRP", "clip": 0.1}),
    ("LSTM", {"given": "XWRB", "clip": 0.1, "output": 2}),
    ("LSTM", {"given": "XWRB", "input_forget": 1}),
    ("RNN", {"activations": ["Relu"]}),
    ("RNN", {"activations": ["Softsign"]}),
    ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.3]}),
    ("RNN", {"activations": ["LeakyRelu"]}),
    ("RNN", {"activations": ["Elu"], "activation_alpha": [0.7]}),
    ("RNN", {"activations": ["Softplus"]}),
    (
        "LSTM",
        {
            "activations": ["HardSigmoid", "ScaledTanh", "Affine"],
            "activation_alpha": [0.3, 1.2, 0.5],
            "activation_beta": [0.4, 0.6, 0.1],
        },
    ),
    (
        "GRU",
        {
            "directions": 2,
            "direction": "bidirectional",
            "activations": ["Sigmoid", "Relu", "HardSigmoid", "tanh"],
        },
    ),
]


@pytest.mark.parametrize(("op_type", "options"), CASES, ids=str)
def test_gradient(op_type, options):
    """The result is ONNX Runtime's; the gradient is that of differences, in float64."""
    vjp = differentiate(model(op_type, **options))
    onnx.checker.check_model(vjp, full_check=True)
    x = normal(BATCH, INPUT, 1, STEPS, seed=7)
    (expected,) = on_runtime(model(op_type, dtype=np.float32, **options), {"x": x.astype("f")})
    seed = normal(*expected.shape, seed=8)

    def run(x):
        return on_onnx(vjp, {"x": x, "grad_y": seed})

    value, gradient = run(x)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    direction = normal(*x.shape, seed=9)
    ahead, behind = (run(x + h * direction)[0] for h in (1e-6, -1e-6))
    change = ((ahead - behind) * seed).sum() / 2e-6
    np.testing.assert_allclose((gradient * direction).sum(), change, rtol=1e-5, atol=1e-7)
    single = differentiate(model(op_type, dtype=np.float32, **options))
    found = on_runtime(single, {"x": x.astype("f"), "grad_y": seed.astype("f")})[1]
    np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_recognizer_of_torch(layers, tmp_path):
    """A small CRNN, as torch exports it; its sequence is as long as the image is wide."""

    class Recognizer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 4, 3, (4, 2), 1)
            self.lstm = torch.nn.LSTM(8, 6, layers, bidirectional=True)
            self.head = torch.nn.Linear(12, 5)

        def forward(self, x):
            x = self.conv(x).relu().flatten(1, 2).permute(2, 0, 1)
            return self.head(self.lstm(x)[0]).permute(1, 0, 2)

    torch.manual_seed(0)
    net = Recognizer().eval()
    images = torch.rand(2, 1, 8, 12)
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter's, of which there are many
        torch.onnx.export(
            net,
            (images,),
            path,
            dynamo=False,
            opset_version=14,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}},
        )
    vjp = differentiate(path)
    images = torch.rand(3, 1, 8, 12, requires_grad=True)
    value = net(images)
    seed = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    value.backward(seed)
    found = on_runtime(vjp, {"x": images.detach().numpy(), "grad_y": seed.numpy()})
    np.testing.assert_allclose(found[0], value.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], images.grad.numpy(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("unknown", ["width", -1])
def test_a_sequence_as_long_as_the_image_is_wide(unknown):
    """A size that the file leaves open, by a name or a -1, and the user gives."""
    proto = model("LSTM", dtype=np.float32, batch=unknown)
    for dim in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        if unknown == -1:
            dim.dim_value = -1
        else:
            dim.dim_param = f"{unknown}_{dim.dim_value}"
    with pytest.raises(ModelError, match="--size"):
        differentiate(proto)
    given = differentiate(proto, size=(1, STEPS))
    fixed = differentiate(model("LSTM", dtype=np.float32))
    feeds = {"x": normal(3, INPUT, 1, STEPS).astype("f")}
    feeds["grad_y"] = np.ones(on_runtime(proto, {"x": feeds["x"]})[0].shape, "f")
    for found, expected in zip(on_runtime(given, feeds), on_runtime(fixed, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lengths", [[3, 3], [3, 2]])
def test_lengths_of_the_sequences(lengths):
    proto = model("LSTM", given="XWRBs", batch=2, dtype=np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(lengths, np.int32), "s"))
    if lengths == [3, 3]:
        assert len(differentiate(proto).graph.output) == 2
    else:
        with pytest.raises(UnsupportedOperator, match=r"LSTM .*lengths of their own"):
            differentiate(proto)


def test_a_sequence_along_the_batch_is_refused():
    proto = model("GRU", dtype=np.float32)
    proto.graph.node[1].attribute[0].ints[:] = [0, 2, 1]
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(UnsupportedOperator, match=r"GRU .*length of its sequence"):
        differentiate(proto)


def test_an_image_of_the_wrong_size_is_named():
    proto = model("LSTM", dtype=np.float32)
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(UnsupportedOperator, match=r"LSTM .*Squeeze .*do not fit together"):
        differentiate(proto, size=(2, STEPS))
