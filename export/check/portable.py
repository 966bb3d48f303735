"""What keeps an artifact from running everywhere: operators that a runtime lacks, opsets it is too
old for.
"""

from collections.abc import Iterator

import onnx

from jataug.errors import ModelError
from jataug.runtime.unsupported import opset_of

__all__ = ["check_portable"]

_OPSET, _IR = 26, 13
"""The newest that onnxruntime-node and onnxruntime-web 1.30 take."""

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
"""By runtime: what it said it lacks in every one of ONNX's node tests of the operator (openvino
2026.4.1, tract 0.23.9). ONNX Runtime has all of them, and so have its builds for Node.js and WASM.
"""


def check_portable(model: onnx.ModelProto) -> None:
    """Refuse a model that one of the runtimes cannot run.

    Raises:
        ModelError: names the operator, its node and the runtime, or the opset.
    """
    if opset_of(model) > _OPSET or model.ir_version > _IR:
        raise ModelError(
            f"portable: expected opset {_OPSET} and IR version {_IR} at most, which ONNX Runtime "
            f"Web and Node.js take, got {opset_of(model)} and {model.ir_version}; convert the "
            "classifier to an older opset (18 runs everywhere)"
        )
    for node in _nodes(model.graph):
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"portable: expected operators of ONNX alone, got {node.domain}.{node.op_type} "
                f"(node {node.name!r})"
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
    return "the classifier brings it along: leave --for portable out, or change the classifier"


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)
