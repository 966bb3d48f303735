"""A builder of ONNX graphs. It names nodes, shares constants and drops unused nodes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from jataug.errors import ModelError

from .term import Dim, Shape, Term

__all__ = [
    "Dim",
    "Graph",
    "Shape",
    "Term",
    "as_model",
    "initializer_of",
    "needed_nodes",
    "reads",
]

Array = NDArray[Any]

_IR_VERSION = 10


class Graph:
    """A graph under construction: nodes in the order they were added, and shared constants.

    Args:
        parent: the enclosing graph, for the body of a control-flow node. It holds the constants.
        reserved: names that are kept for outputs, even if values of a network have them.
    """

    def __init__(self, parent: "Graph | None" = None, reserved: Iterable[str] = ()) -> None:
        self.nodes: list[ir.Node] = []
        self.constants: dict[str, ir.Value] = parent.constants if parent else {}
        self._known: dict[tuple[Any, ...], ir.Value] = parent._known if parent else {}
        self._names: dict[str, int] = parent._names if parent else dict.fromkeys(reserved, 0)

    def unique(self, name: str) -> str:
        """Return `name`, with a number added if it is taken."""
        candidate = name
        while candidate in self._names:
            self._names[name] += 1
            candidate = f"{name}_{self._names[name]}"
        self._names[candidate] = 0
        return candidate

    def input(self, name: str, dtype: Any, shape: Shape) -> Term:
        """Return a term for a new graph input. The caller passes it to `finish`."""
        dtype = np.dtype(dtype)
        value = ir.val(self.unique(name), dtype=ir.DataType.from_numpy(dtype), shape=shape)
        return Term(self, value, dtype, shape)

    def op(
        self,
        op_type: str,
        *inputs: Term | None,
        dtype: np.dtype[Any] | None = None,
        shape: Shape | None = None,
        **attributes: Any,
    ) -> Term:
        """Add a node with one output and return it as a term."""
        values = [None if term is None else term.value for term in inputs]
        output = ir.Value(name=self.unique(op_type.lower()))
        self.add(ir.node(op_type, values, attributes or None, outputs=[output]))
        return Term(self, output, dtype, shape)

    def add(self, node: ir.Node) -> ir.Node:
        """Add a finished node."""
        node.name = self.unique(node.name or node.op_type)
        self.nodes.append(node)
        return node

    def constant(self, array: Any, dtype: Any = None, name: str = "const") -> Term:
        """Return a constant; equal constants are one initializer."""
        array = np.asarray(array, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        return self._remember(key, lambda: array, name)

    def derived(
        self, source: Term, purpose: str, make: Callable[..., Array], *others: Term
    ) -> Term:
        """Return make(source.const, *constants of others) as a separate initializer.

        Calls with equal source, others and purpose share it, so `make` may depend on nothing else.
        Conv and ConvTranspose must not share a kernel, even if the numbers agree: OpenVINO 2026.4
        then returns wrong gradients.
        """
        terms = (source, *others)
        for term in terms:
            if term.const is None:
                raise ModelError(f"{term.value.name}: expected a constant")
        key = (purpose, *(id(term.value) for term in terms))
        arrays = [term.const for term in terms]
        return self._remember(key, lambda: make(*arrays), f"{source.value.name}_{purpose}")

    def _remember(self, key: tuple[Any, ...], make: Callable[[], Array], name: str) -> Term:
        value = self._known.get(key)
        if value is None:
            value = self.initializer(name, make()).value
            self._known[key] = value
        return self._constant_term(value)

    def initializer(self, name: str, array: Array) -> Term:
        """Add a named constant that is never shared, and return it."""
        name = self.unique(name)
        self.constants[name] = initializer_of(name, array)
        return self._constant_term(self.constants[name])

    def _constant_term(self, value: ir.Value) -> Term:
        tensor = value.const_value
        if tensor is None:
            raise ModelError(f"{value.name}: expected a constant")
        array = tensor.numpy()
        return Term(self, value, array.dtype, array.shape, array)

    def adopt(self, value: ir.Value) -> Term:
        """Return another graph's constant as one of this graph. It is copied only once."""
        key = ("adopted", id(value))
        known = self._known.get(key)
        if known is not None and known.const_value is None:
            return Term(self, known, known.dtype.numpy() if known.dtype else None, _sizes(known))
        if known is None:
            tensor = value.const_value
            if tensor is None:
                raise ModelError(f"{value.name}: expected a constant")
            known = self.initializer(value.name or "weight", tensor.numpy()).value
            self._known[key] = known
        return self._constant_term(known)

    def supply(self, value: ir.Value, term: Term) -> None:
        """Make `adopt` return the input `term` for another graph's weight `value`."""
        self._known[("adopted", id(value))] = term.value

    def finish(
        self,
        inputs: Iterable[Term],
        outputs: Mapping[str, Term],
        name: str,
        *,
        opsets: Mapping[str, int] | None = None,
    ) -> ir.Graph:
        """Return the finished graph, without unneeded nodes. Output names must be reserved.

        Args:
            inputs: the terms made by `input`, in order.
            outputs: name -> term; every term must have a type and a shape.
            name: the graph's name.
            opsets: domain -> version, for a main graph; None for a body, whose parent holds the
                constants.
        """
        main = opsets is not None
        finals: list[ir.Value] = []
        for output, term in outputs.items():
            value = term.value
            if value.producer() not in self.nodes or value in finals:
                value = self.op("Identity", term).value
            value.name = output if main else self.unique(output)
            if term.dtype is None or term.shape is None:
                raise ModelError(f"output {output}: its type or shape is not known")
            value.type = ir.TensorType(ir.DataType.from_numpy(term.dtype))
            value.shape = ir.Shape(term.shape)
            finals.append(value)
        kept = needed_nodes(self.nodes, finals)
        used = {v.name for node in kept for v in reads(node)}
        domains = {"", *(node.domain for node in kept)}
        return ir.Graph(
            [term.value for term in inputs],
            finals,
            nodes=kept,
            initializers=[v for n, v in self.constants.items() if n in used] if main else (),
            opset_imports={d: v for d, v in (opsets or {}).items() if d in domains},
            name=name,
        )


def as_model(graph: ir.Graph) -> onnx.ModelProto:
    """Return a finished main graph as a model."""
    return ir.to_proto(ir.Model(graph, ir_version=_IR_VERSION, producer_name="jataug"))


def initializer_of(name: str, array: Any) -> ir.Value:
    """Return a constant, to be registered at a graph."""
    tensor = ir.Tensor(np.array(array, order="C"), name=name)
    shape, kind = ir.Shape(tensor.shape), ir.TensorType(tensor.dtype)
    return ir.Value(name=name, shape=shape, type=kind, const_value=tensor)


def _sizes(value: ir.Value) -> Shape | None:
    sizes = None if value.shape is None else tuple(value.shape)
    return None if sizes is None else tuple(d for d in sizes if isinstance(d, int))


def reads(node: ir.Node) -> Iterable[ir.Value]:
    """Yield the values that a node reads, including those that its subgraphs read."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            body = attribute.as_graph()
            yield from body.outputs
            for inner in body:
                yield from reads(inner)


def needed_nodes(nodes: Sequence[ir.Node], outputs: Iterable[ir.Value]) -> list[ir.Node]:
    """Return, in order, the nodes that the outputs need, directly or through nested graphs."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if any(value in needed for value in node.outputs):
            kept.append(node)
            needed.update(reads(node))
    return kept[::-1]
