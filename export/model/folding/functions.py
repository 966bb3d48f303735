"""Replaces composite ops without a derivative rule by the function body of their ONNX schema."""

from collections.abc import Mapping
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from ...graph.shapes import Info, Walk
from ...rules import has_rule

__all__ = ["expand_functions", "function_body", "is_composite"]

_KEPT = {
    "Bernoulli": "the derivative of a sample is zero, but that of its mean is not",
    "DynamicQuantizeLinear": "rounds",
    "NegativeLogLikelihoodLoss": "needs labels",
    "Range": "its body is a Loop",
    "SequenceMap": "it works on sequences",
    "SoftmaxCrossEntropyLoss": "needs labels",
}
"""Ops that are not expanded, and the reason."""


def expand_functions(model: ir.Model) -> bool:
    """Expand, in place, composite ops with a function body but no rule; return if any was.

    A body may depend on the types and ranks of the op's inputs, so an op stays if they cannot be
    inferred. A body may hold composite ops too, so call it until it returns False.
    """
    opset = model.opset_imports.get("", 0)
    candidates = [n for n in model.graph if not n.domain and is_composite(n.op_type, opset)]
    if not candidates:
        return False
    infos = Walk(model, "", ("?",)).run().infos
    bodies = {node: body for node in candidates if (body := function_body(model, node, infos))}
    for number, (node, body) in enumerate(bodies.items()):
        body.domain, body.overload = "jataug.function", str(number)
        function = ir.from_proto(body)
        node.domain, node.op_type, node.overload = function.identifier()
        model.functions[function.identifier()] = function
    common.InlinePass()(model)
    return bool(bodies)


def function_body(
    model: ir.Model, node: ir.Node, infos: Mapping[str, Info]
) -> onnx.FunctionProto | None:
    """Return the function body of a node's op at the model's opset.

    Return None if it has none, or if the types that the body depends on cannot be inferred.
    """
    opset = model.opset_imports[""]
    schema: Any = onnx.defs.get_schema(node.op_type, opset)  # its stub lacks the bodies
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.type:
            node.attributes.add(ir.from_proto(attribute.default_value))
    if fixed := [v for v in schema.function_opset_versions if v <= opset]:
        found = schema.get_function_with_opset_version(max(fixed))
    else:
        names = [None if value is None else value.name or "" for value in node.inputs]
        if any(name is not None and name not in infos for name in names):
            return None
        types = [onnx.TypeProto() if name is None else _type(infos[name]) for name in names]
        version = max(v for v in schema.context_dependent_function_opset_versions if v <= opset)
        found = schema.get_context_dependent_function_with_opset_version(
            version, ir.to_proto(node).SerializeToString(), [t.SerializeToString() for t in types]
        )
    if not found:
        return None
    body: onnx.FunctionProto = onnx.FunctionProto.FromString(found)
    # A body declares optional outputs even if the node does not use them.
    del body.output[len(node.outputs) :]
    made = {name for inner in body.node for name in inner.output}
    for name in set(body.output) - made:
        body.node.append(onnx.helper.make_node("Constant", [], [name], value_float=0.0))
    # A body's ops are of its own opset. Later opsets only added types to them.
    del body.opset_import[:]
    body.opset_import.add(domain="", version=opset)
    return body


def is_composite(op_type: str, opset: int) -> bool:
    """Return whether an ai.onnx op is differentiated through the function body of its schema."""
    if has_rule("", op_type) or op_type in _KEPT or not onnx.defs.has(op_type, opset, ""):
        return False
    schema: Any = onnx.defs.get_schema(op_type, opset)
    versions = schema.function_opset_versions + schema.context_dependent_function_opset_versions
    return any(version <= opset for version in versions)


def _type(info: Info) -> onnx.TypeProto:
    dims = [size if isinstance(size, int) else None for size in info.shape]
    return onnx.helper.make_tensor_type_proto(int(info.dtype), dims)
