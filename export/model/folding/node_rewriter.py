"""Replaces a node by other nodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ...graph.builder import initializer_of
from .static_values import StaticValues

__all__ = ["NodeRewriter", "split_entries", "stack_entries"]


class NodeRewriter:
    """Replaces one node: writes copies of its bodies, and other nodes, in front of it."""

    def __init__(self, static: StaticValues, node: ir.Node) -> None:
        self.graph, self.node, self.names = static.model.graph, node, static.names
        self.name = node.name or node.outputs[0].name or node.op_type

    def body(self, attribute: str) -> ir.Graph:
        return self.node.attributes[attribute].as_graph()

    def number(self, attribute: str, default: Any) -> Any:
        found = self.node.attributes.get(attribute)
        return default if found is None else found.value

    def copy(self, body: ir.Graph, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        """Write a copy of the body that reads `inputs` before the node; return its outputs."""
        clone = body.clone(allow_outer_scope_values=True)
        outer: dict[ir.Value, ir.Value] = dict(zip(clone.inputs, inputs, strict=True))
        for old in list(clone.initializers.values()):
            if old.const_value is not None:
                outer[old] = self.constant(old.const_value.numpy())
        for old, new in outer.items():
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        outputs = list(clone.outputs)
        clone.outputs.clear()
        nodes = list(clone)
        clone.remove(nodes)
        for node in nodes:
            node.name = self._unique(node.name or node.op_type)
            for value in node.outputs:
                if value.name:
                    value.name = self._unique(value.name)
        self.graph.insert_before(self.node, nodes)
        return outputs

    def op(self, op_type: str, *inputs: ir.Value, outputs: int = 1, **attributes: Any) -> Any:
        """Write a new node before the node; return its output, or a list for several outputs."""
        node = ir.node(op_type, list(inputs), attributes or None, num_outputs=outputs)
        node.name = self._unique(op_type)
        for value in node.outputs:
            value.name = self._unique(op_type)
        self.graph.insert_before(self.node, node)
        return node.outputs[0] if outputs == 1 else list(node.outputs)

    def constant(self, array: Any) -> ir.Value:
        value = initializer_of(self._unique("const"), array)
        self.graph.register_initializer(value)
        return value

    def replace(self, results: Sequence[ir.Value]) -> None:
        """Replace the node's outputs by `results`, and remove the node."""
        for i, (old, new) in enumerate(zip(self.node.outputs, results, strict=True)):
            if old.is_graph_output():
                new = self.op("Identity", new)
                name, old.name = old.name, f"{self.name}/output_{i}"
                new.name, new.type, new.shape = name, old.type, old.shape
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        self.graph.remove(self.node, safe=True)

    def refusal(self, why: str) -> str:
        return f"{self.node.op_type} (node {self.name!r}): {why}"

    def _unique(self, name: str) -> str:
        count, candidate = 0, f"{self.name}/{name}"
        while candidate in self.names:
            count += 1
            candidate = f"{self.name}/{name}/{count}"
        self.names.add(candidate)
        return candidate


def stack_entries(rewriter: NodeRewriter, entries: Sequence[ir.Value], axis: int) -> ir.Value:
    """Return the entries stacked along a new axis."""
    axes = rewriter.constant(np.array([axis], np.int64))
    rows = [rewriter.op("Unsqueeze", entry, axes) for entry in entries]
    stack: ir.Value = rewriter.op("Concat", *rows, axis=axis)
    return stack


def split_entries(rewriter: NodeRewriter, value: Any, axis: int, count: int) -> list[ir.Value]:
    """Return the entries of a value along an axis, without that axis."""
    axes = rewriter.constant(np.array([axis], np.int64))
    if count == 1:
        return [rewriter.op("Squeeze", value, axes)]
    parts = rewriter.op("Split", value, outputs=count, axis=axis, num_outputs=count)
    return [rewriter.op("Squeeze", part, axes) for part in parts]
