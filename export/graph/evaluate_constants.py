"""Evaluates one node on constant inputs, with the same results as the runtime."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

from jataug.runtime.onnxruntime import Engine

__all__ = ["evaluate"]

Array = NDArray[Any]


def evaluate(
    node: onnx.NodeProto,
    feeds: Mapping[str, Array],
    opsets: Iterable[onnx.OperatorSetIdProto],
) -> list[Array] | None:
    """Return a node's outputs for constant inputs, or None if they cannot be computed.

    ONNX Runtime computes floating-point values, as it computes the rest of the model. onnx's
    reference evaluator computes sizes and indices, five times faster. It also replaces ONNX Runtime
    where that is not installed or lacks the type, except for operators that it computes wrongly.
    """
    whole = all(array.dtype in _WHOLE for array in feeds.values())
    found = None if whole else _by_runtime(node, feeds, opsets)
    if found is None and node.op_type not in _WRONG:
        found = _by_onnx(node, feeds, opsets)
    return found


_WHOLE = (np.dtype(np.int64), np.dtype(np.int32), np.dtype(bool))

_WRONG = {"GridSample", "LRN", "LpNormalization"}
"""The operators that onnx's evaluator computes wrongly. The tests' evaluators replace them too."""


def _by_runtime(
    node: onnx.NodeProto,
    feeds: Mapping[str, Array],
    opsets: Iterable[onnx.OperatorSetIdProto],
) -> list[Array] | None:
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in feeds.items()}
    graph = helper.make_graph(
        [node],
        "constant",
        [helper.make_tensor_value_info(n, kinds[n], a.shape) for n, a in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )
    single = helper.make_model(graph, opset_imports=list(opsets), ir_version=10)
    try:
        found = Engine(single, {}, "cpu", threads=1).run(feeds)
    except Exception:  # ONNX Runtime is not installed, or has no kernel for the type
        return None
    return [found[name] for name in node.output if name]


def _by_onnx(
    node: onnx.NodeProto,
    feeds: Mapping[str, Array],
    opsets: Iterable[onnx.OperatorSetIdProto],
) -> list[Array] | None:
    names = [name for name in node.output if name]
    graph = onnx.helper.make_graph(
        [node],
        "constant",
        [onnx.ValueInfoProto(name=name) for name in feeds],
        [onnx.ValueInfoProto(name=name) for name in names],
    )
    single = onnx.helper.make_model(graph, opset_imports=list(opsets))
    try:
        with np.errstate(all="ignore"):
            found = ReferenceEvaluator(single).run(None, dict(feeds))
    except Exception:  # the evaluator lacks the op, the type or an option
        return None
    return [np.asarray(array) for array in found]
