"""Refuses artifacts that a supported runtime cannot run: a missing operator, or a newer opset."""

from collections.abc import Iterator

import onnx

from jataug.errors import ModelError
from jataug.runtime.unsupported import opset_of

__all__ = ["check_portable"]

_OPSET, _IR = 26, 13
"""The newest opset and IR version that onnxruntime-node and onnxruntime-web 1.30 accept."""

_LACKING = {
    "OpenVINO": {
        "BitCast", "CausalConvWithState", "CumProd", "DeformConv", "Det", "ImageDecoder",
        "LinearAttention", "MaxUnpool", "MelWeightMatrix", "OptionalHasElement",
        "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "SwiGLU",
        "TensorScatter", "TfIdfVectorizer",
    },
    "tract": {
        "AffineGrid", "Bernoulli", "BitCast", "CenterCropPad", "Col2Im", "CumProd", "DeformConv",
        "Det", "LinearAttention", "Loop", "LpPool", "MaxUnpool", "NegativeLogLikelihoodLoss",
        "OptionalHasElement", "RoiAlign", "SoftmaxCrossEntropyLoss", "SplitToSequence",
        "TensorScatter", "TfIdfVectorizer", "Upsample",
    },
}  # fmt: skip
"""The operators that each runtime lacks: it refused every ONNX node test of the operator (openvino
2026.4.1, tract 0.23.9). ONNX Runtime has all of them, and so have its builds for Node.js and WASM.
"""


def check_portable(model: onnx.ModelProto) -> None:
    """Refuse a model that one of the runtimes cannot run.

    Raises:
        ModelError: names the operator, its node and the runtime, or the opset.
    """
    if opset_of(model) > _OPSET or model.ir_version > _IR:
        raise ModelError(
            f"portable: the artifact has opset {opset_of(model)} and IR version "
            f"{model.ir_version}; ONNX Runtime Web and Node.js take at most {_OPSET} and {_IR}; "
            "convert the classifier to an older opset (18 runs everywhere)"
        )
    for node in _nodes(model.graph):
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"portable: {node.domain}.{node.op_type} (node {node.name!r}) is not an operator "
                "of the ONNX standard; leave --for portable out, or change the classifier"
            )
        for runtime, lacking in _LACKING.items():
            if node.op_type in lacking:
                raise ModelError(
                    f"portable: {runtime} lacks the operator {node.op_type} (node {node.name!r}); "
                    f"{_advice(node.op_type)}"
                )


def _advice(op: str) -> str:
    if op == "Loop":
        return "use the form step or unrolled"
    return "it comes from the classifier; leave --for portable out, or change the classifier"


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)
