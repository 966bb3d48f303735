"""Batches and computed shapes: the same small classifier in many forms, its gradient the same."""

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jataug.errors import MissingExtra, UnsupportedOperator
from jataug.export import differentiate
from jataug.export.model.load import prepare

from .checking import normal
from .files import (
    EXPECTED,
    IMAGE,
    SEED,
    body,
    check,
    classifier,
    gradient,
    ints,
    model,
    node,
    shape_of,
)

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


@pytest.mark.parametrize("target", ["1, 16", "0, -1"])
def test_without_a_runtime_a_batch_is_not_fixed_in_silence(target, monkeypatch):
    """Whether a fixed batch can be freed is measured: without a runtime nobody knows."""
    proto = model(body([node("Reshape", "p s", "f")]), {"s": RESHAPES[target]}, batch=1)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"batch.*pip install 'jataug\[cpu\]'"):
        classifier(proto)
    symbolic = model(body([node("Reshape", "p s", "f")]), {"s": ints(0, -1)}, batch="batch")
    assert classifier(symbolic).image_shape[0] == "N"


def test_images_that_mix_keep_their_batch():
    """Normalised over the batch: at another batch the logits would be others."""
    flatten = [
        node("Flatten", "p", "g"),
        node("ReduceMean", "g", "m", axes=[0]),
        node("Sub", "g m", "h"),
        node("Add", "h g", "f"),
    ]
    mixing = model(body(flatten), batch=2)
    assert prepare(mixing).image_shape == (2, 3, 8, 8)
    with pytest.raises(UnsupportedOperator, match="mixes images"):
        classifier(mixing)
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
