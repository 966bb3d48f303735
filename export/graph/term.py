"""Terms: values of a graph under construction. Their operators let rules read as formulas."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from jataug.errors import ModelError

__all__ = ["SOURCE", "Builder", "Dim", "Shape", "Term", "broadcast_shapes", "made_by", "source_of"]

Dim = int | str
"""A static size, or a symbolic one: "N" is the batch, "4N" a multiple of it."""

SOURCE = "jataug.source"
"""The key in a value's `meta` of the network's value that it stands for."""

Shape = tuple[Dim, ...]
Array = NDArray[Any]
Scalar = float | int


class Builder(Protocol):
    """What terms and rules need from the graph around them. `builder.Graph` implements it."""

    def op(
        self,
        op_type: str,
        *inputs: "Term | None",
        dtype: np.dtype[Any] | None = None,
        shape: Shape | None = None,
        **attributes: Any,
    ) -> "Term":
        """Add a node with one output and return it as a term."""
        ...

    def add(self, node: ir.Node) -> ir.Node:
        """Add a finished node."""
        ...

    def unique(self, name: str) -> str:
        """Return `name`, with a number added if it is taken."""
        ...

    def constant(self, array: Any, dtype: Any = None, name: str = "const") -> "Term":
        """Return a constant; equal constants are one initializer."""
        ...

    def derived(
        self, source: "Term", purpose: str, make: Callable[..., Array], *others: "Term"
    ) -> "Term":
        """Return make(source.const, the constants of others) as a constant of its own."""
        ...

    def adopt(self, value: ir.Value) -> "Term":
        """Return another graph's constant as one of this graph's."""
        ...


class Term:
    """A value of a graph under construction. Its operators add nodes to that graph."""

    __slots__ = ("const", "dtype", "graph", "shape", "value")

    def __init__(
        self,
        graph: Builder,
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
        return self.graph.op(op_type, *inputs, dtype=self.dtype, shape=self.shape, **attributes)

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

    def where(self, chosen: "Term | Scalar", other: "Term | Scalar") -> "Term":
        """Return `chosen` where this boolean term is true, else `other`. One must be a term."""
        some = chosen if isinstance(chosen, Term) else other
        if not isinstance(some, Term):
            raise TypeError("where: expected a term among the two values")
        a, b = some._lift(chosen), some._lift(other)
        shape = None
        if self.shape is not None and a.shape is not None and b.shape is not None:
            shape = broadcast_shapes(self.shape, a.shape, b.shape)
        return self.graph.op("Where", self, a, b, dtype=some.dtype, shape=shape)

    def cast(self, dtype: Any) -> "Term":
        """Return the term as `dtype`, or the term itself if it has that type."""
        dtype = np.dtype(dtype)
        if self.dtype == dtype:
            return self
        to = ir.DataType.from_numpy(dtype)
        return self.graph.op("Cast", self, dtype=dtype, shape=self.shape, to=int(to))

    def sum(self, axes: Sequence[int], keepdims: bool = True) -> "Term":
        return self._reduce("ReduceSum", axes, keepdims)

    def max(self, axes: Sequence[int], keepdims: bool = True) -> "Term":
        return self._reduce("ReduceMax", axes, keepdims)

    def mean(self, axes: Sequence[int], keepdims: bool = True) -> "Term":
        return self._reduce("ReduceMean", axes, keepdims)

    def prod(self, axes: Sequence[int], keepdims: bool = True) -> "Term":
        return self._reduce("ReduceProd", axes, keepdims)

    def _reduce(self, op_type: str, axes: Sequence[int], keepdims: bool) -> "Term":
        if not axes:
            return self  # the ONNX op would reduce all axes if it got none
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
        """Return the term in `shape`. If that has two symbolic sizes, `like` is a term of it."""
        if self.shape == shape:
            return self
        if sum(isinstance(dim, str) for dim in shape) > 1:
            if like is None:
                raise ModelError(
                    f"{self.value.name}: expected at most one symbolic size, got {shape}"
                )
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

    def unsqueeze(self, axes: Sequence[int]) -> "Term":
        """Return the term with axes of size 1 at these positions of the result, none negative."""
        if not axes:
            return self
        shape: Shape | None = None
        if self.shape is not None:
            rest = iter(self.shape)
            rank = len(self.shape) + len(axes)
            shape = tuple(1 if i in axes else next(rest) for i in range(rank))
        places = self.graph.constant(np.array(axes, np.int64))
        return self.graph.op("Unsqueeze", self, places, dtype=self.dtype, shape=shape)

    def transpose(self, perm: Sequence[int]) -> "Term":
        if list(perm) == list(range(len(perm))):
            return self
        shape = None if self.shape is None else tuple(self.shape[i] for i in perm)
        return self.graph.op("Transpose", self, dtype=self.dtype, shape=shape, perm=list(perm))

    def expand(self, shape: Shape) -> "Term":
        """Return the term broadcast to `shape`. The term must already have its symbolic sizes."""
        if self.shape == shape:
            return self
        sizes = np.array([1 if isinstance(dim, str) else dim for dim in shape], np.int64)
        return self.graph.op(
            "Expand", self, self.graph.constant(sizes), dtype=self.dtype, shape=shape
        )

    def expand_like(self, other: "Term") -> "Term":
        """Return the term broadcast to the shape of `other`."""
        if other.shape is None:
            raise ModelError(f"{other.value.name}: its shape cannot be inferred")
        own = (1,) * (len(other.shape) - len(self.shape or ())) + (self.shape or ())
        if all(a == b for a, b in zip(own, other.shape, strict=True) if isinstance(b, str)):
            return self.expand(other.shape)
        sizes = self.graph.op("Shape", other, dtype=np.dtype(np.int64), shape=(len(other.shape),))
        return self.graph.op("Expand", self, sizes, dtype=self.dtype, shape=other.shape)

    def slice(
        self,
        starts: Sequence[int],
        ends: Sequence[int],
        axes: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> "Term":
        """Return self[start:end:step] along each axis, with numpy's bounds for static sizes."""
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
        """Return the term with `before` and `after` entries added along each axis.

        The entries are zeros, `value`, or copies of the edge.
        """
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
    # An ONNX end below every index includes the first entry; Python needs None for that.
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


def made_by(value: ir.Value | None) -> str:
    """Return the op type that computes a value, in this graph or in its network; "" for none."""
    if value is None:
        return ""
    node = value.producer() or source_of(value).producer()
    return "" if node is None else node.op_type


def source_of(value: ir.Value) -> ir.Value:
    """Return the network's value that a value stands for, or the value itself."""
    found: ir.Value = value.meta.get(SOURCE, value)
    return found
