"""Small ONNX models for the tests of the bridge."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

__all__ = ["OFFSETS", "WEIGHT", "flat", "nhwc", "pair", "two_outputs"]

WEIGHT = np.random.default_rng(3).normal(size=(48, 10)).astype(np.float32)
"""Of `nhwc`: from 4 x 4 x 3 values to 10 logits."""


def _model(text: str) -> onnx.ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]>\n{text}')
    model.graph.initializer.append(numpy_helper.from_array(WEIGHT, "w"))
    return model


def nhwc(head: str = "y = Identity(h)") -> onnx.ModelProto:
    """(N, 4, 4, 3) -> logits (N, 10), bent by a sine; `head` makes them the output y."""
    return _model(f"""
        agraph (float[N, 4, 4, 3] x) => (float[N, 10] y) {{
            f = Flatten(x)
            s = Sin(f)
            h = MatMul(s, w)
            {head}
        }}""")


def two_outputs() -> onnx.ModelProto:
    """(N, 3, 4, 4) -> "logits" (N, 10) and "features" (N, 48)."""
    return _model("""
        agraph (float[N, 3, 4, 4] x) => (float[N, 10] logits, float[N, 48] features) {
            features = Flatten(x)
            logits = MatMul(features, w)
        }""")


def flat() -> onnx.ModelProto:
    """(N, 3, 4, 4) -> logits that no small change of the image moves."""
    return _model("""
        agraph (float[N, 3, 4, 4] x) => (float[N, 10] logits) {
            f = Flatten(x)
            s = Sign(f)
            logits = MatMul(s, w)
        }""")


OFFSETS = np.random.default_rng(4).normal(size=(2, 10)).astype(np.float32)
"""Of `pair`: what it adds to the first and to the second row."""


def pair(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model for two images: with a constant for each row, which no other batch has."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    graph = fixed.graph
    graph.initializer.append(numpy_helper.from_array(OFFSETS, "offsets"))
    graph.node.append(helper.make_node("Add", [graph.output[0].name, "offsets"], ["sum"]))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("sum", TensorProto.FLOAT, [2, 10]))
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    del graph.value_info[:]
    return fixed
