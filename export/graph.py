"""Building ONNX graphs as formulas: terms with operators, a builder that names and collects them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from jataug.errors import ModelError

__all__ = ["Dim", "Graph", "Shape", "Term", "broadcast_shapes"]

Dim = int | str
"""A static size, or the name of a symbolic one: "N" for the batch, "4N" for a multiple of it."""

Shape = tuple[Dim, ...]
Array = NDArray[Any]
Scalar = float | int


class Term:
    """A value of a graph under construction: what is known of it, and the operators that extend the graph."""

    __slots__ = ("const", "dtype", "graph", "shape", "value")

    def __init__(
        self,
        graph: "Graph",
        value: ir.Value,
        dtype: np.dtype[Any] | None,
        shape: Shape | None,
        const: Array | None = None,
    ) -> None:
        self.graph, self.value, self.dtype, self.shape, self.const = (
            graph,
            value,
            dtype,
            shape,
            const,
        )

    def __repr__(self) -> str:
        return f"Term({self.value.name}, {self.dtype}, {self.shape})"

    def __add__(self, other: Self | Scalar) -> "Term":
        return self._binary("Add", self, other)

    def __radd__(self, other: Scalar) -> "Term":
        return self._binary("Add", other, self)

    def __sub__(self, other: Self | Scalar) -> "Term":
        return self._binary("Sub", self, other)

    def __rsub__(self, other: Scalar) -> "Term":
        return self._binary("Sub", other, self)

    def __mul__(self, other: Self | Scalar) -> "Term":
        return self._binary("Mul", self, other)

    def __rmul__(self, other: Scalar) -> "Term":
        return self._binary("Mul", other, self)

    def __truediv__(self, other: Self | Scalar) -> "Term":
        return self._binary("Div", self, other)

    def __rtruediv__(self, other: Scalar) -> "Term":
        return self._binary("Div", other, self)

    def __pow__(self, other: Self | Scalar) -> "Term":
        return self._binary("Pow", self, other)

    def __neg__(self) -> "Term":
        return self.same("Neg", self)

    def __lt__(self, other: Self | Scalar) -> "Term":
        return self._binary("Less", self, other)

    def __le__(self, other: Self | Scalar) -> "Term":
        return self._binary("LessOrEqual", self, other)

    def __gt__(self, other: Self | Scalar) -> "Term":
        return self._binary("Greater", self, other)

    def __ge__(self, other: Self | Scalar) -> "Term":
        return self._binary("GreaterOrEqual", self, other)

    def equals(self, other: Self | Scalar) -> "Term":
        return self._binary("Equal", self, other)

    def __and__(self, other: Self) -> "Term":
        return self._binary("And", self, other)

    def _binary(self, op_type: str, left: "Term | Scalar", right: "Term | Scalar") -> "Term":
        a, b = self._lift(left), self._lift(right)
        shape = None
        if a.shape is not None and b.shape is not None:
            shape = broadcast_shapes(a.shape, b.shape)
        boolean = op_type in _COMPARISONS
        return self.graph.op(
            op_type, a, b, dtype=np.dtype(bool) if boolean else a.dtype, shape=shape
        )

    def _lift(self, other: "Term | Scalar") -> "Term":
        return other if isinstance(other, Term) else self.graph.constant(other, self.dtype)

    def same(self, op_type: str, *inputs: "Term", **attributes: Any) -> "Term":
        """Add an op whose result has this term's type and shape."""
        return self.graph.op(
            op_type, *inputs, dtype=self.dtype, shape=self.shape, **attributes
        )

    def sign(self) -> "Term":
        return self.same("Sign", self)

    def abs(self) -> "Term":
        return self.same("Abs", self)

    def sqrt(self) -> "Term":
        return self.same("Sqrt", self)

    def exp(self) -> "Term":
        return self.same("Exp", self)

    def log(self) -> "Term":
        return self.same("Log", self)

    def relu(self) -> "Term":
        return self.same("Relu", self)

    def maximum(self, other: "Term | Scalar") -> "Term":
        return self._binary("Max", self, other)

    def minimum(self, other: "Term | Scalar") -> "Term":
        return self._binary("Min", self, other)

    def cast(self, dtype: Any) -> "Term":
        """Return the term as `dtype`; itself if it is that already."""
        dtype = np.dtype(dtype)
        if self.dtype == dtype:
            return self
        to = ir.DataType.from_numpy(dtype)
        return self.graph.op("Cast", self, dtype=dtype, shape=self.shape, to=int(to))

    def sum(self, axes: Sequence[int], keepdims: bool = True) -> "Term":
        return self._reduce("ReduceSum", axes, keepdims)

    def max(self, axes: Sequence[int], keepdims: bool = True) -> "Term":
        return self._reduce("ReduceMax", axes, keepdims)

    def _reduce(self, op_type: str, axes: Sequence[int], keepdims: bool) -> "Term":
        shape = None
        if self.shape is not None:
            gone = {axis % len(self.shape) for axis in axes}
            kept = [
                (1 if i in gone else dim)
                for i, dim in enumerate(self.shape)
                if keepdims or i not in gone
            ]
            shape = tuple(kept)
        axes_term = self.graph.constant(np.array(axes, np.int64))
        return self.graph.op(
            op_type, self, axes_term, dtype=self.dtype, shape=shape, keepdims=int(keepdims)
        )

    def reshape(self, shape: Shape, like: "Term | None" = None) -> "Term":
        """Return the term in `shape`; where that holds two symbolic sizes, `like` is a term that has it."""
        if self.shape == shape:
            return self
        if sum(isinstance(dim, str) for dim in shape) > 1:
            if like is None:
                raise ModelError(f"{self.value.name}: expected at most one symbolic size, got {shape}")
            target = self.graph.op("Shape", like, dtype=np.dtype(np.int64), shape=(len(shape),))
        else:
            sizes = np.array([-1 if isinstance(dim, str) else dim for dim in shape], np.int64)
            target = self.graph.constant(sizes)
        return self.graph.op("Reshape", self, target, dtype=self.dtype, shape=shape)

    def reshape_like(self, other: "Term") -> "Term":
        """Return the term in the shape of `other`."""
        if other.shape is None:
            raise ModelError(f"{other.value.name}: its shape cannot be inferred")
        return self.reshape(other.shape, other)

    def transpose(self, perm: Sequence[int]) -> "Term":
        if list(perm) == list(range(len(perm))):
            return self
        shape = None if self.shape is None else tuple(self.shape[i] for i in perm)
        return self.graph.op("Transpose", self, dtype=self.dtype, shape=shape, perm=list(perm))

    def expand(self, shape: Shape) -> "Term":
        """Return the term broadcast to `shape`, whose symbolic sizes the term itself must already have."""
        if self.shape == shape:
            return self
        sizes = np.array([1 if isinstance(dim, str) else dim for dim in shape], np.int64)
        return self.graph.op(
            "Expand", self, self.graph.constant(sizes), dtype=self.dtype, shape=shape
        )

    def slice(
        self,
        starts: Sequence[int],
        ends: Sequence[int],
        axes: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> "Term":
        """Return self[start:end:step] along each axis; bounds as in numpy for static sizes."""
        steps = [1] * len(axes) if steps is None else steps
        shape = None
        if self.shape is not None:
            sizes = list(self.shape)
            for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
                size = sizes[axis]
                if isinstance(size, int):
                    sizes[axis] = len(range(size)[_span(start, end, step)])
            shape = tuple(sizes)
        bounds = [self.graph.constant(np.array(v, np.int64)) for v in (starts, ends, axes, steps)]
        return self.graph.op("Slice", self, *bounds, dtype=self.dtype, shape=shape)

    def pad(
        self,
        before: Sequence[int],
        after: Sequence[int],
        mode: str = "constant",
        value: float | None = None,
    ) -> "Term":
        """Return the term with `before` and `after` entries added along each axis: zeros, `value`, or the edge."""
        if not any(before) and not any(after):
            return self
        shape = None
        if self.shape is not None:
            sizes = zip(self.shape, before, after, strict=True)
            shape = tuple(d + b + a if isinstance(d, int) else d for d, b, a in sizes)
        pads = self.graph.constant(np.array([*before, *after], np.int64))
        fill = [] if value is None else [self.graph.constant(value, self.dtype)]
        return self.graph.op("Pad", self, pads, *fill, dtype=self.dtype, shape=shape, mode=mode)

    def matmul(self, other: "Term") -> "Term":
        """Return the matrix product of two terms of rank 2 or more."""
        shape = None
        if self.shape is not None and other.shape is not None:
            stack = broadcast_shapes(self.shape[:-2], other.shape[:-2])
            shape = (*stack, self.shape[-2], other.shape[-1])
        return self.graph.op("MatMul", self, other, dtype=self.dtype, shape=shape)


_COMPARISONS = frozenset({"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "And", "Or"})


def _span(start: int, end: int, step: int) -> slice:
    # An ONNX end below every index means "to the very first"; in Python that is None.
    return slice(start, None if step < 0 and end < -(2**31) else end, step)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """Return the shape that numpy-style broadcasting gives; a symbolic size wins over 1."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    result: list[Dim] = []
    for dims in zip(*padded, strict=True):
        sizes = {dim for dim in dims if dim != 1}
        if len(sizes) > 1:
            raise ModelError(f"shapes {shapes} do not broadcast")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


class Graph:
    """Nodes in the order they were added, and the constants they share.

    Args:
        parent: the graph around this one, for the body of a control-flow node; constants are kept there.
    """

    def __init__(self, parent: "Graph | None" = None) -> None:
        self.nodes: list[ir.Node] = []
        self.constants: dict[str, ir.Value] = parent.constants if parent else {}
        self._known: dict[tuple[Any, ...], ir.Value] = parent._known if parent else {}
        self._names: dict[str, int] = parent._names if parent else {}

    def unique(self, name: str) -> str:
        """Return `name`, with a number added if it is taken."""
        candidate = name
        while candidate in self._names:
            self._names[name] += 1
            candidate = f"{name}_{self._names[name]}"
        self._names[candidate] = 0
        return candidate

    def input(self, name: str, dtype: Any, shape: Shape) -> Term:
        """Return a term for a graph input; the caller lists it when the graph is finished."""
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

    def derived(self, source: Term, purpose: str, make: Callable[[Array], Array]) -> Term:
        """Return make(source.const) as an initializer of its own, shared by equal purposes alone.

        A kernel must not be shared between Conv and ConvTranspose, not even where the numbers agree: OpenVINO 2026.4
        then returns wrong gradients.
        """
        const = source.const
        if const is None:
            raise ModelError(f"{source.value.name}: expected a constant")
        key = (id(source.value), purpose)
        return self._remember(key, lambda: make(const), f"{source.value.name}_{purpose}")

    def _remember(self, key: tuple[Any, ...], make: Callable[[], Array], name: str) -> Term:
        value = self._known.get(key)
        if value is None:
            value = self.initializer(name, make()).value
            self._known[key] = value
        return self._constant_term(value)

    def initializer(self, name: str, array: Array) -> Term:
        """Add a named constant of its own."""
        name = self.unique(name)
        tensor = ir.Tensor(np.array(array, order="C"), name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.constants[name] = value
        return self._constant_term(value)

    def _constant_term(self, value: ir.Value) -> Term:
        tensor = value.const_value
        if tensor is None:
            raise ModelError(f"{value.name}: expected a constant")
        array = tensor.numpy()
        return Term(self, value, array.dtype, array.shape, array)

    def adopt(self, value: ir.Value) -> Term:
        """Return another graph's constant as one of this graph's; the same constant is adopted once."""
        key = ("adopted", id(value))
        known = self._known.get(key)
        if known is None:
            tensor = value.const_value
            if tensor is None:
                raise ModelError(f"{value.name}: expected a constant")
            known = self.initializer(value.name or "weight", tensor.numpy()).value
            self._known[key] = known
        return self._constant_term(known)

    def finish(
        self,
        inputs: Iterable[Term],
        outputs: Mapping[str, Term],
        name: str,
        *,
        opset: int | None = None,
    ) -> ir.Graph:
        """Return the graph: outputs named as given, nodes that nothing needs left out.

        Args:
            inputs: the terms made by `input`, in order.
            outputs: name -> term; every term must have a type and a shape.
            name: the graph's name.
            opset: the ai.onnx version, for a main graph; None for a body, whose constants stay with its parent.
        """
        finals: list[ir.Value] = []
        for output, term in outputs.items():
            value = term.value
            if value.producer() not in self.nodes or value in finals:
                value = self.op("Identity", term).value
            value.name = output
            if term.dtype is None or term.shape is None:
                raise ModelError(f"output {output}: its type or shape is not known")
            value.type = ir.TensorType(ir.DataType.from_numpy(term.dtype))
            value.shape = ir.Shape(term.shape)
            finals.append(value)
        kept = _live(self.nodes, finals)
        used = {v.name for node in kept for v in _inputs(node)}
        main = opset is not None
        return ir.Graph(
            [term.value for term in inputs],
            finals,
            nodes=kept,
            initializers=[v for n, v in self.constants.items() if n in used] if main else (),
            opset_imports={"": opset} if opset is not None else {},
            name=name,
        )


def _inputs(node: ir.Node) -> Iterable[ir.Value]:
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            body = attribute.as_graph()
            yield from body.outputs
            for inner in body:
                yield from _inputs(inner)


def _live(nodes: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> list[ir.Node]:
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if any(value in needed for value in node.outputs):
            kept.append(node)
            needed.update(_inputs(node))
    return kept[::-1]
