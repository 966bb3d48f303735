"""Wrong input is refused in one line; branches that depend on sizes alone are taken."""

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jataug.errors import ModelError, UnsupportedOperator
from jataug.export import differentiate
from jataug.export.model.load import load_model

from .checking import normal
from .files import body, check, ints, model, node

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


@pytest.mark.parametrize("op", ["Sign", "Floor", "Cast"])
def test_a_flat_operator_between_the_input_and_the_logits_is_named(op):
    """A binarised network is no network that ignores its image."""
    kind = {"to": TensorProto.INT32} if op == "Cast" else {}
    nodes = [
        node("Flatten", "x", "flat"), node(op, "flat", "s", "bits", **kind),
        node("Cast", "s", "t", to=TensorProto.FLOAT), node("MatMul", "t heavy", "y"),
    ]  # fmt: skip
    proto = model(nodes, {"heavy": np.ones((192, 5), np.float32)})
    refused(proto, rf"0 everywhere: {op} \(node 'bits'\).*derivative of zero.*jataug.export.rule")


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


def test_an_input_without_a_shape_is_named():
    proto = model()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    name = proto.graph.input[0].name
    refused(proto, rf"input '{name}' has no declared shape.*declare it in the file")


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
