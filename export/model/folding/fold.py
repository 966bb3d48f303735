"""Passes over a model before it is differentiated. Each is a function over the whole graph.

1. `lift_constants` turns Constant nodes into initializers.
2. `fold_constants` computes nodes whose inputs are all constants.
3. `drop_identities` removes Identity, and Dropout at inference.
4. `fold_batch_norm` merges BatchNormalization into the kernel and bias of the Conv before it.
"""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from jataug.errors import ModelError, UnsupportedOperator

from ...graph.builder import initializer_of
from ...graph.evaluate_constants import evaluate
from ...graph.shapes import constant, is_random
from .control_flow import inline_control
from .functions import expand_functions

__all__ = [
    "drop_identities",
    "drop_unused",
    "fold",
    "fold_batch_norm",
    "fold_constants",
    "lift_constants",
    "register",
    "replace_by_constants",
]

Array = NDArray[Any]


def fold(model: ir.Model) -> ir.Model:
    """Apply every pass of this module to the model, in place, and return it."""
    common.InlinePass()(model)
    _refuse_training(model)
    model.graph.sort()
    lift_constants(model)
    fold_constants(model)
    while inline_control(model) or expand_functions(model):
        lift_constants(model)
        fold_constants(model)
    drop_identities(model)
    fold_batch_norm(model)
    drop_unused(model)
    return model


def _refuse_training(model: ir.Model) -> None:
    # onnx-ir before 1.1 turns a training node into an inference node if nothing reads its means.
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        mode = node.attributes.get("training_mode")
        if node.op_type == "BatchNormalization" and mode is not None and mode.as_int():
            raise UnsupportedOperator(
                f"BatchNormalization (node {node.name!r}) in training form mixes the images of a "
                "batch; export the model in eval mode"
            )


def drop_unused(model: ir.Model) -> None:
    """Remove the nodes and initializers that no output needs."""
    common.RemoveUnusedNodesPass()(model)


def lift_constants(model: ir.Model) -> None:
    """Turn Constant nodes into initializers.

    Raises:
        ModelError: a constant is not numeric, for example text.
    """
    for node in list(model.graph):
        if node.op_type == "Constant" and not node.domain:
            arrays = _evaluated(model, node, {})
            if arrays is None:
                raise ModelError(f"Constant (node {node.name!r}): its value is not a tensor")
            replace_by_constants(model.graph, node, arrays)


def fold_constants(model: ir.Model) -> None:
    """Compute the nodes whose inputs are all constants. Nodes that cannot be computed stay."""
    for node in list(model.graph):
        inputs = {v.name: constant(v) for v in node.inputs if v is not None}
        subgraphs = any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())
        if node.domain or subgraphs or not inputs or any(a is None for a in inputs.values()):
            continue
        if is_random(node) or node.op_type in _GROWING:
            continue
        if (arrays := _evaluated(model, node, inputs)) is not None:
            replace_by_constants(model.graph, node, arrays)


_GROWING = {"QuantizeLinear", "DequantizeLinear"}  # a runtime fuses these only if they stay


def drop_identities(model: ir.Model) -> None:
    """Remove Identity and inference-time Dropout, except where they give a graph output."""
    for node in list(model.graph):
        if node.domain or node.op_type not in ("Identity", "Dropout"):
            continue
        if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
            mode = constant(node.inputs[2])
            if mode is None or mode.any():
                raise UnsupportedOperator(
                    f"Dropout (node {node.name!r}) is in training form; export the model in eval "
                    "mode"
                )
        source, result = node.inputs[0], node.outputs[0]
        masked = len(node.outputs) > 1 and node.outputs[1].uses()
        if source is None or result.is_graph_output() or masked:
            continue
        result.replace_all_uses_with(source)
        model.graph.remove(node, safe=True)


def fold_batch_norm(model: ir.Model) -> None:
    """Fold BatchNormalization into the Conv before it.

    This requires that (1) the Conv's result has no other use, (2) kernel, bias and statistics are
    constants, and (3) the normalisation is in inference form.
    """
    for node in list(model.graph):
        if node.op_type != "BatchNormalization" or node.domain:
            continue
        source = node.inputs[0]
        conv = source.producer() if source is not None else None
        if source is None or conv is None or conv.op_type != "Conv" or conv.domain:
            continue
        if len(source.uses()) != 1 or source.is_graph_output():
            continue
        if "training_mode" in node.attributes and node.attributes["training_mode"].as_int():
            continue
        kernel, bias = constant(conv.inputs[1]), _bias(conv)
        statistics = [constant(value) for value in node.inputs[1:]]
        if kernel is None or bias is None or any(s is None for s in statistics):
            continue
        epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
        scale, shift, mean, var = (np.asarray(s, np.float64) for s in statistics)
        gain = scale / np.sqrt(var + epsilon)
        folded_kernel = kernel * gain.reshape(-1, *[1] * (kernel.ndim - 1))
        folded_bias = (bias - mean) * gain + shift
        prefix = source.name or node.name or "conv"
        conv.resize_inputs(3)
        for i, (array, suffix) in enumerate(((folded_kernel, "weight"), (folded_bias, "bias")), 1):
            value = register(model.graph, f"{prefix}_folded_{suffix}", array.astype(kernel.dtype))
            conv.replace_input_with(i, value)
        result = node.outputs[0]
        # A name keeps its meaning of the file: the value after the normalisation.
        name, result.name = result.name, f"{result.name}_unfolded"
        source.name = name
        if result.is_graph_output():
            source.shape, source.type = result.shape, result.type
            model.graph.outputs[model.graph.outputs.index(result)] = source
        result.replace_all_uses_with(source)
        model.graph.remove(node, safe=True)


def _bias(conv: ir.Node) -> Array | None:
    if len(conv.inputs) > 2 and conv.inputs[2] is not None:
        return constant(conv.inputs[2])
    kernel = constant(conv.inputs[1])
    return None if kernel is None else np.zeros(kernel.shape[0], kernel.dtype)


def _evaluated(
    model: ir.Model, node: ir.Node, inputs: dict[Any, Array | None]
) -> list[Array] | None:
    feeds = {name: array for name, array in inputs.items() if array is not None}
    opsets = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
    return evaluate(ir.to_proto(node), feeds, opsets)


def replace_by_constants(graph: ir.Graph, node: ir.Node, arrays: list[Array]) -> None:
    """Replace a node's outputs by constants, and remove the node."""
    named = [value for value in node.outputs if value.name]
    if any(value.is_graph_output() for value in named):
        return
    for value, array in zip(named, arrays, strict=True):
        name = value.name or node.op_type
        value.name = f"{name}_computed"
        value.replace_all_uses_with(register(graph, name, np.asarray(array)))
    graph.remove(node, safe=True)


def register(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """Add an initializer, and return its value."""
    while name in graph.initializers:
        name += "_"
    value = initializer_of(name, array)
    graph.register_initializer(value)
    return value
