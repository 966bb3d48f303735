"""Files as they come: the same small classifier in many forms, its gradient always the same."""

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jataug.errors import ModelError, UnsupportedOperator
from jataug.export import differentiate
from jataug.export.model import load_model, prepare
from jataug.preprocessing import Preprocessing

from .checking import normal, on_runtime

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


# Weights


def test_the_gradient_is_that_of_differences():
    def loss(image):
        return (on_runtime(model(), {"x": image})[0].astype(np.float64) * SEED).sum()

    direction = EXPECTED / np.linalg.norm(EXPECTED)
    step = 1e-3 * direction
    slope = (loss(IMAGE + step) - loss(IMAGE - step)) / 2e-3
    assert slope == pytest.approx(np.linalg.norm(EXPECTED), rel=1e-3)


def as_constant_nodes(proto):
    for tensor in list(proto.graph.initializer):
        constant = helper.make_node("Constant", [], [tensor.name], value=tensor)
        proto.graph.node.insert(0, constant)
    del proto.graph.initializer[:]
    return proto


def test_weights_in_constant_nodes():
    check(as_constant_nodes(model()))


def test_weights_in_sparse_constant_nodes():
    proto = model()
    sparse = sparse_tensor(proto, "u")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["u"], sparse_value=sparse))
    check(proto)


def sparse_tensor(proto, name):
    (tensor,) = (t for t in proto.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor)
    proto.graph.initializer.remove(tensor)
    places = np.arange(array.size, dtype=np.int64)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(array.ravel(), name),
        numpy_helper.from_array(places, f"{name}_places"),
        list(array.shape),
    )


def test_sparse_initializers():
    proto = model()
    for name in ("u", "v"):
        proto.graph.sparse_initializer.append(sparse_tensor(proto, name))
    check(proto)


def test_initializers_that_are_inputs_too():
    proto = model(opset=7, ir_version=3)
    for tensor in proto.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(info)
    check(proto)


# External data


def saved(folder, **options):
    path = folder / "model.onnx"
    onnx.save(model(), path, save_as_external_data=True, size_threshold=0, **options)
    return path


@pytest.mark.parametrize(
    "options", [{"location": "weights.bin"}, {"all_tensors_to_one_file": False}]
)
def test_weights_in_the_models_own_folder(tmp_path, options):
    path = saved(tmp_path, **options)
    assert len(list(tmp_path.iterdir())) > 1
    check(path)


def pointed(path, location):
    """Let the first weight's data be found at `location`."""
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/passwd", "sub/../../weights.bin", "C:\\weights.bin", ""]
)
def test_weights_outside_the_models_folder_are_refused(tmp_path, location):
    (tmp_path / "inner").mkdir()
    path = pointed(saved(tmp_path / "inner", location="weights.bin"), location)
    (tmp_path / "weights.bin").write_bytes((tmp_path / "inner" / "weights.bin").read_bytes())
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_model(path)


def test_a_link_that_leaves_the_folder_is_refused(tmp_path):
    (tmp_path / "inner").mkdir()
    path = saved(tmp_path / "inner", location="weights.bin")
    (tmp_path / "inner" / "weights.bin").rename(tmp_path / "weights.bin")
    (tmp_path / "inner" / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="a link that leaves"):
        load_model(path)


def test_external_data_that_is_missing_or_short(tmp_path):
    path = saved(tmp_path, location="weights.bin")
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[:100])
    with pytest.raises(ModelError, match="too short"):
        load_model(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"'weights.bin' does not exist"):
        load_model(path)


def test_external_data_that_was_not_loaded(tmp_path):
    proto = onnx.load(saved(tmp_path, location="weights.bin"), load_external_data=False)
    with pytest.raises(ModelError, match="was not loaded; give the model's path"):
        differentiate(proto)


# The batch

RESHAPES = {
    "1, 16": ints(1, 16),
    "1, -1": ints(1, -1),
    "-1, 16": ints(-1, 16),
    "0, -1": ints(0, -1),
}


@pytest.mark.parametrize("target", RESHAPES)
@pytest.mark.parametrize("batch", [1, "batch", 0])
def test_a_batch_in_a_reshape_is_freed(target, batch):
    proto = model(body([node("Reshape", "p s", "f")]), {"s": RESHAPES[target]}, batch=batch)
    assert shape_of(proto) == ["N", 3, 8, 8]
    assert classifier(proto).image_shape == ("N", 3, 8, 8)
    check(proto)


def test_a_fixed_batch_of_four_is_freed():
    proto = model(body([node("Reshape", "p s", "f")]), {"s": ints(4, -1)}, batch=4)
    assert classifier(proto).logits_shape == ("N", 5)
    check(proto)


def test_a_class_token_of_batch_one_is_expanded():
    """Concat of a constant (1, 1, 4), as a vision transformer of fixed batch has it."""
    token = normal(1, 1, 4, seed=11).astype(np.float32)
    flatten = [
        node("Reshape", "p s", "q"),
        node("Concat", "t q", "tq", axis=1),
        node("Slice", "tq one end axis", "cut"),
        node("Add", "cut tq0", "cut2"),
        node("Reshape", "cut2 flat", "f"),
    ]
    extra = {
        "s": ints(1, 4, 4),
        "t": token,
        "one": ints(1),
        "end": ints(2**63 - 1),
        "axis": ints(1),
        "flat": ints(1, 16),
        "tq0": np.zeros((1, 4, 4), np.float32),
    }
    proto = model(body(flatten), extra, batch=1)
    assert classifier(proto).image_shape[0] == "N"
    check(proto)


def test_images_that_mix_keep_their_batch():
    """Normalised over the batch: at another batch the logits would be others."""
    flatten = [
        node("Flatten", "p", "g"),
        node("ReduceMean", "g", "m", axes=[0]),
        node("Sub", "g m", "h"),
        node("Add", "h g", "f"),
    ]
    assert classifier(model(body(flatten), batch=2)).image_shape == (2, 3, 8, 8)
    squeezed = [node("Squeeze", "p zero", "q"), node("Reshape", "q s", "f")]
    fixed = model(body(squeezed), {"zero": ints(0), "s": ints(1, 16)}, batch=1)
    assert shape_of(fixed) == [1, 3, 8, 8]
    found = gradient(fixed, IMAGE[:1], SEED[:1])
    np.testing.assert_allclose(found, EXPECTED[:1], rtol=1e-4, atol=1e-5)


# Computed shapes

CHAINS = {
    "view(x.shape[0], -1)": [
        node("Shape", "p", "sh"),
        node("Gather", "sh zero", "n0", axis=0),
        node("Unsqueeze", "n0 axes", "n1"),
        node("Concat", "n1 rest", "s", axis=0),
        node("Reshape", "p s", "f"),
    ],
    "view(-1, c * h * w)": [
        node("Shape", "p", "sh"),
        node("Slice", "sh one four", "chw"),
        node("ReduceProd", "chw", "k", keepdims=1),
        node("Concat", "rest k", "s", axis=0),
        node("Reshape", "p s", "f"),
    ],
    "mul and cast": [
        node("Shape", "p", "sh"),
        node("Cast", "sh", "fsh", to=TensorProto.FLOAT),
        node("Slice", "fsh one four", "chw"),
        node("ReduceProd", "chw", "k", keepdims=1),
        node("Cast", "k", "ki", to=TensorProto.INT64),
        node("Slice", "sh axes one", "n1"),
        node("Concat", "n1 ki", "s", axis=0),
        node("Reshape", "p s", "f"),
    ],
}  # fmt: skip
SMALL = {"zero": np.array(0), "axes": ints(0), "one": ints(1), "four": ints(4), "rest": ints(-1)}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("batch", ["batch", 1])
def test_chains_of_shape_ops_are_folded(name, batch):
    vjp = differentiate(model(body(CHAINS[name]), SMALL, batch=batch))
    plain = differentiate(model(body([node("Reshape", "p s", "f")]), {"s": ints(-1, 16)}))
    assert len(vjp.graph.node) == len(plain.graph.node)
    check(model(body(CHAINS[name]), SMALL, batch=batch))


def test_missing_names_and_value_info():
    proto = model()
    for each in proto.graph.node:
        each.name = ""
    check(proto)
    for each in proto.graph.node:
        each.name = "same"
    check(proto)


def test_nodes_in_any_order():
    proto = model()
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[::-1])
    check(proto)


def test_large_metadata_and_the_long_name_of_the_domain():
    proto = model(domains=[("ai.onnx", 13)])
    del proto.opset_import[0]
    for i, each in enumerate(proto.graph.node):
        each.domain = "ai.onnx" if i % 2 else ""
    entry = proto.metadata_props.add()
    entry.key, entry.value = "notes", "x" * 5_000_000
    check(proto)
    assert differentiate(proto).ByteSize() < 100_000


def test_optional_inputs_left_empty():
    nodes = body([node("Clip", "p", "q"), node("Flatten", "q", "f")])
    nodes[4].input.extend(["", "top"])
    check(model(nodes, {"top": np.array(1e9, np.float32)}))


def test_model_local_functions_are_inlined():
    inner = [node("Relu", "a", "t"), node("Identity", "t", "o")]
    function = helper.make_function(
        "local", "Act", ["a"], ["o"], inner, [helper.make_opsetid("", 13)]
    )
    nodes = body()
    nodes[2] = node("Act", "n", "r", domain="local")
    check(model(nodes, functions=[function], domains=[("local", 1)]))


# Other exporters


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23])
def test_every_opset(opset):
    check(model(opset=opset, ir_version=8 if opset < 19 else 10))


def tensorflow(opset=9):
    """Channels last, each convolution between two Transposes, biases as Add, SAME padding."""
    nodes = [
        node("Transpose", "x", "x1", perm=[0, 3, 1, 2]),
        node("Conv", "x1 w", "c0", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Transpose", "c0", "c1", perm=[0, 2, 3, 1]),
        node("Add", "c1 b", "c"),
        node("Transpose", "c", "c2", perm=[0, 3, 1, 2]),
        node("BatchNormalization", "c2 scale shift mean var", "n2", name="dense/BiasAdd:0"),
        node("Transpose", "n2", "n", perm=[0, 2, 3, 1]),
        node("Relu", "n", "r"),
        node("Transpose", "r", "r2", perm=[0, 3, 1, 2]),
        node("MaxPool", "r2", "p2", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
        node("Transpose", "p2", "p", perm=[0, 2, 3, 1]),
        node("Transpose", "p", "p3", perm=[0, 3, 1, 2]),
        node("Reshape", "p3 s", "f"),
        node("MatMul", "f v", "m"),
        node("Add", "m u", "y"),
    ]
    return model(nodes, {"s": ints(-1, 16)}, image=["unk__1", 8, 8, 3], opset=opset)


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17])
def test_tensorflow(opset):
    found = gradient(tensorflow(opset), np.ascontiguousarray(IMAGE.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), EXPECTED, rtol=1e-4, atol=1e-5)
    assert classifier(tensorflow(opset), layout="nhwc").image_shape == ("N", 8, 8, 3)


def test_caffe():
    """Batch norm beside a Scale of (1, C, 1, 1), unfolded; the last layer a convolution."""
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "c ones zeros mean var", "n0"),
        node("Mul", "n0 gain", "n1"),
        node("Add", "n1 offset", "n"),
        node("Relu", "n", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p k u", "y"),
    ]
    extra = {
        "ones": np.ones(4, np.float32),
        "zeros": np.zeros(4, np.float32),
        "gain": WEIGHTS["scale"].reshape(1, 4, 1, 1),
        "offset": WEIGHTS["shift"].reshape(1, 4, 1, 1),
        "k": np.ascontiguousarray(WEIGHTS["v"].T.reshape(5, 4, 2, 2)),
    }
    proto = model(nodes, extra, opset=9)
    found = gradient(proto, seed=SEED.reshape(2, 5, 1, 1))
    np.testing.assert_allclose(found, EXPECTED, rtol=1e-4, atol=1e-5)
    assert classifier(proto).logits_shape == ("N", 5)


# Heads


@pytest.mark.parametrize("axes", [[1], [2], [2, 3], [1, 3]])
def test_logits_with_axes_of_size_one(axes):
    proto = model([*body(last="z"), node("Unsqueeze", "z axes", "y")], {"axes": ints(*axes)})
    assert classifier(proto).logits_shape == ("N", 5)


HEADS = {
    "Softmax": [node("Softmax", "z", "y", axis=1)],
    "Sigmoid": [node("Sigmoid", "z", "y")],
    "Softmax, Reshape": [node("Softmax", "z", "q", axis=1), node("Reshape", "q five", "y")],
    "Softmax of (N, K, 1, 1)": [
        node("Unsqueeze", "z axes", "q"),
        node("Softmax", "q", "r2", axis=1),
        node("Flatten", "r2", "y"),
    ],
    "Softmax, Identity": [node("Softmax", "z", "q", axis=-1), node("Identity", "q", "y")],
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("opset", [13, 18])
def test_heads_are_taken_off(head, opset):
    nodes = [*body(last="z"), *HEADS[head]]
    proto = model(nodes, {"axes": ints(2, 3), "five": ints(-1, 5)}, opset=opset)
    network = classifier(proto, outputs="probabilities")
    assert network.logits_shape == ("N", 5)
    assert not {n.op_type for n in network.nodes} & {"Softmax", "Sigmoid", "Log"}


def test_a_head_of_another_kind_gives_its_logarithm():
    nodes = [*body(last="z"), node("Softmax", "z", "q", axis=1), node("Mul", "q half", "y")]
    proto = model(nodes, {"half": np.array(0.5, np.float32)})
    network = classifier(proto, outputs="probabilities")
    assert network.nodes[-1].op_type == "Log"


def test_several_outputs():
    nodes = [*body(), node("Sigmoid", "y", "features")]
    proto = model(nodes, outputs=("features", "y"))
    with pytest.raises(ModelError, match=r"2 outputs: features.*, y.*; name the logits"):
        classifier(proto)
    assert classifier(proto, logits="y").logits.name == "y"
    check(proto, of="y")


# Types and sizes


def test_open_height_and_width():
    proto = model(image=["batch", 3, "height", "width"])
    with pytest.raises(ModelError, match="give height and width with --size"):
        classifier(proto)
    network = prepare(proto, preprocessing=Preprocessing(), size=(8, 8))
    assert network.image_shape == ("N", 3, 8, 8)
    with pytest.raises(ModelError, match=r"do not fit together"):
        prepare(proto, preprocessing=Preprocessing(), size=(16, 16))


def test_float16():
    half = {name: array.astype(np.float16) for name, array in WEIGHTS.items()}
    proto = model(weights=half, kind=TensorProto.FLOAT16)
    found = gradient(proto, IMAGE.astype(np.float16), SEED.astype(np.float16))
    assert found.dtype == np.float16
    error = np.linalg.norm(found - EXPECTED) / np.linalg.norm(EXPECTED)
    assert error < 0.01
    assert classifier(proto).logits_shape == ("N", 5)


# Wrong input


def refused(proto, pattern, error=ModelError, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=pattern) as caught:
            differentiate(proto, **options)
    assert "\n" not in str(caught.value)


def test_no_path_from_the_input_to_the_logits():
    nodes = [*body(last="z"), node("Constant", "", "y", value_floats=[1.0, 2.0])]
    refused(model(nodes), "do not depend on the image")
    nodes = [*body(last="z"), node("Floor", "z", "y")]
    refused(model(nodes), "do not depend on the image")


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT64, TensorProto.INT8])
def test_input_of_integers(kind):
    nodes = [node("Cast", "image", "x", to=TensorProto.FLOAT), *body()]
    image = helper.make_tensor_value_info("image", kind, ["batch", 3, 8, 8])
    refused(model(nodes, inputs=[image]), "of a floating-point type.*image.*INT")


def test_an_unknown_domain_is_named():
    nodes = body()
    nodes[2] = node("FancyRelu", "n", "r", name="act", domain="com.example")
    proto = model(nodes, domains=[("com.example", 1)])
    refused(proto, "'r' cannot be inferred.*FancyRelu.*com.example.*'act'.*value_info")
    declared = helper.make_tensor_value_info("r", 1, ["batch", 4, 4, 4])
    proto.graph.value_info.append(declared)
    refused(proto, "no derivative rule for FancyRelu.*com.example.*'act'", UnsupportedOperator)


def test_a_cycle():
    nodes = body()
    nodes[2] = node("Add", "n p", "r", name="loop")
    refused(model(nodes), "cycle through Add 'loop'")


def test_values_made_twice_or_never():
    twice = [*body(), node("Neg", "f", "p", name="again")]
    refused(model(twice), "two nodes make the value 'p'.*'again'")
    refused(model([*body()[:-1], node("Gemm", "f v nowhere", "y")]), "'nowhere', which nothing")
    refused(model(outputs=("z",)), "nothing makes the output 'z'")


def test_a_size_that_depends_on_data_is_named():
    flatten = [
        node("NonZero", "p", "where"),
        node("Transpose", "where", "rows"),
        node("GatherND", "p rows", "kept"),
        node("ReduceSum", "kept", "total", keepdims=1),
        node("Flatten", "p", "g"),
        node("Add", "g total", "f"),
    ]
    refused(model(body(flatten)), "'kept' cannot be inferred.*GatherND.*value_info")


def test_inputs_that_do_not_fit_are_named():
    proto = model(weights={"v": normal(15, 5).astype(np.float32)})
    refused(proto, r"Gemm \(node 'Gemm_5'\): its inputs do not fit together")


def test_not_an_onnx_file(tmp_path):
    path = tmp_path / "model.onnx"
    for content in (b"", b"\x00" * 64, b"PK\x03\x04 zip", model().SerializeToString()[:500]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"model.onnx.*truncated") as caught:
            load_model(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="found none"):
        load_model(tmp_path / "none.onnx")


# Control flow


def branches(condition):
    """ReLU where the condition holds, else its negative."""
    graphs = {}
    for name, op in (("then_branch", "Relu"), ("else_branch", "Neg")):
        result = onnx.ValueInfoProto(name=f"{name}_out")
        result.type.tensor_type.elem_type = TensorProto.FLOAT
        inner = [node(op, "n", f"{name}_out")]
        graphs[name] = helper.make_graph(inner, name, [], [result])
    nodes = body()
    nodes[2:3] = [*condition, helper.make_node("If", ["cond"], ["r"], "branch", **graphs)]
    low = np.array(0.0, np.float32)
    return model(nodes, {"three": ints(3), "wide": np.array(4), "low": low})


def test_a_branch_that_depends_on_a_static_size_is_taken():
    """As torch writes it: the batch is symbolic, the width is not."""
    width = [
        node("Shape", "n", "sizes"),
        node("Gather", "sizes three", "last", axis=0),
        node("Squeeze", "last", "width"),
        node("Equal", "width wide", "cond"),
    ]
    check(branches(width))


def test_a_branch_that_depends_on_the_image_is_refused():
    seen = [node("ReduceMax", "n", "most", keepdims=0), node("Greater", "most low", "cond")]
    refused(branches(seen), "If.*'branch'.*", UnsupportedOperator)
