"""A small classifier that the tests of files write in many forms."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jataug.export import differentiate
from jataug.export.model.load import prepare
from jataug.preprocessing import Preprocessing

from .checking import normal, on_runtime

__all__ = [
    "EXPECTED",
    "IMAGE",
    "RANDOM",
    "SEED",
    "WEIGHTS",
    "body",
    "check",
    "classifier",
    "gradient",
    "ints",
    "model",
    "node",
    "shape_of",
]

RANDOM = {
    "w": normal(4, 3, 3, 3, seed=1) / 3,
    "b": normal(4, seed=2),
    "scale": normal(4, seed=3) + 2,
    "shift": normal(4, seed=4),
    "mean": normal(4, seed=5),
    "var": normal(4, seed=6) ** 2 + 0.5,
    "v": normal(16, 5, seed=7),
    "u": normal(5, seed=8),
}
WEIGHTS = {name: array.astype(np.float32) for name, array in RANDOM.items()}
IMAGE = normal(2, 3, 8, 8, seed=9).astype(np.float32)
SEED = normal(2, 5, seed=10).astype(np.float32)


def node(op_type, inputs, outputs, name="", **attributes):
    return helper.make_node(op_type, inputs.split(), outputs.split(), name, **attributes)


def body(flatten=None, last="y"):
    """Conv, batch norm, ReLU, max pool, flatten, dense."""
    return [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "c scale shift mean var", "n"),
        node("Relu", "n", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        *(flatten or [node("Flatten", "p", "f")]),
        node("Gemm", "f v u", last),
    ]


def model(
    nodes=None,
    weights=None,
    *,
    batch="batch",
    image=None,
    outputs=("y",),
    opset=13,
    kind=TensorProto.FLOAT,
    inputs=None,
    functions=(),
    domains=(),
    ir_version=8,
):
    arrays = {**WEIGHTS, **(weights or {})}
    shape = [batch, 3, 8, 8] if image is None else image
    results = []
    for name in outputs:
        results.append(onnx.ValueInfoProto(name=name))
        results[-1].type.tensor_type.elem_type = kind
    graph = helper.make_graph(
        nodes or body(),
        "net",
        inputs or [helper.make_tensor_value_info("x", kind, shape)],
        results,
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid(*d) for d in (("", opset), *domains)]
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=ir_version, functions=list(functions)
    )


def gradient(proto, image=IMAGE, seed=SEED, **options):
    vjp = differentiate(proto, **options)
    onnx.checker.check_model(vjp, full_check=True)
    names = [value.name for value in vjp.graph.output]
    feeds = {vjp.graph.input[0].name: image, vjp.graph.input[1].name: seed}
    found = dict(zip(names, on_runtime(vjp, feeds), strict=True))
    return next(array for name, array in found.items() if name.startswith("grad_"))


EXPECTED = gradient(model())


def check(proto, **options):
    found = gradient(proto, **options)
    np.testing.assert_allclose(found, EXPECTED, rtol=1e-4, atol=1e-5)


def shape_of(proto, **options):
    dims = differentiate(proto, **options).graph.input[0].type.tensor_type.shape.dim
    return [dim.dim_param or dim.dim_value for dim in dims]


def classifier(proto, logits=None, **options):
    return prepare(proto, of=logits, preprocessing=Preprocessing(**options))


def ints(*values):
    return np.array(values, np.int64)
