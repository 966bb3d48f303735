"""Saves memory in a finished graph: cheap values are computed again where the gradient reads them.

A Gelu that is written out keeps x, x / sqrt(2) and 1 + erf for its gradient, and x alone is enough.
ONNX Runtime needs two measures for this to work. It merges equal nodes, so a copy reads a scalar
constant in another shape: () instead of (1,), or the reverse. It runs nodes depth first from the
outputs, the operand with the higher number first, so nodes are sorted by depth: nodes that wait for
the cotangent then run before nodes that wait for nothing (benchmarks/README.md).
"""

import math
from itertools import count

import onnx_ir as ir

from ..graph.builder import initializer_of, reads

__all__ = ["SIZES", "order_by_depth", "rematerialize"]

SIZES = "jataug.sizes"
"""The key of a value's sizes in its `meta`. Values without sizes are never computed again."""

_FAR = 32
"""The least number of consecutive nodes between a value and a reader that computes it again."""
_LONGEST = 8
"""The most nodes that are computed again for one value."""
_SMALLEST = 1024
"""Values with fewer entries per image are kept, because they take little memory."""

_BROADCAST = frozenset({"Add", "Div", "Mul", "Sub", "Where"})
_CHEAP = _BROADCAST | {
    "Abs", "Erf", "Exp", "HardSigmoid", "IsNaN", "LeakyRelu", "Neg", "Reciprocal", "Relu",
    "Sigmoid", "Sign", "Sqrt", "Tanh",
}  # fmt: skip


def rematerialize(graph: ir.Graph) -> None:
    """Compute cheap values again for readers that run much later, in place, in loop bodies too.

    The results stay bit-identical. A value is computed again only if it is elementwise, large, and
    a few nodes away from values that are kept anyway.
    """
    constants = _Constants(graph)
    for part in (graph, *graph.subgraphs()):
        _merge(part)
        _Copies(part, constants).write()


def order_by_depth(graph: ir.Graph) -> None:
    """Sort nodes by the longest path that leads to them, in place, in loop bodies too."""
    for part in (graph, *graph.subgraphs()):
        depths = _depths(part)
        nodes = sorted(part, key=depths.__getitem__)
        part.remove(nodes)
        part.extend(nodes)


class _Copies:
    """Writes the copies of a graph's cheap nodes."""

    def __init__(self, graph: ir.Graph, constants: "_Constants") -> None:
        self.graph, self.constants = graph, constants
        self.times = _times(graph)
        self.again: dict[ir.Value, ir.Value] = {}

    def write(self) -> None:
        for node in list(self.graph):
            for value in node.outputs[:1]:
                far = self._far(value)
                if far and _is_large(value) and self._follows(value):
                    copy = self._copy(value)
                    for reader, place in far:
                        reader.replace_input_with(place, copy)

    def _far(self, value: ir.Value) -> list[tuple[ir.Node, int]]:
        """Return the readers in this graph that run much later, with their input positions."""
        maker = value.producer()
        start = 0 if maker is None else self.times.get(maker, 0)
        uses = [(use.node, use.idx) for use in value.uses()]
        return [use for use in uses if self.times.get(use[0], 0) - start > _FAR]

    def _follows(self, value: ir.Value) -> bool:
        """Return whether a value can be computed again.

        It can if a few cheap nodes compute it from values that are kept anyway, and the runtime
        would not merge their copies with the originals.
        """
        found: set[ir.Node] = set()
        waiting = [value]
        while waiting:
            node = waiting.pop().producer()
            if node in found:
                continue
            if node is None or node.op_type not in _CHEAP or len(found) == _LONGEST:
                return False
            found.add(node)
            given = [v for v in node.inputs if v is not None and v.const_value is None]
            lost = [v for v in given if not self._far(v)]
            if not (lost or any(_is_scalar(node, v) for v in node.inputs)):
                return False
            waiting += lost
        return True

    def _copy(self, value: ir.Value) -> ir.Value:
        if value not in self.again:
            node = value.producer()
            assert node is not None
            copy = ir.node(
                node.op_type, [self._source(node, v) for v in node.inputs], dict(node.attributes)
            )
            copy.name = copy.outputs[0].name = self.constants.unique(f"{value.name}_again")
            self.graph.insert_after(node, copy)
            self.times[copy] = self.times[node]
            self.again[value] = copy.outputs[0]
        return self.again[value]

    def _source(self, node: ir.Node, value: ir.Value | None) -> ir.Value | None:
        """Return the value that a node's copy reads instead of `value`."""
        if value is None or value in self.again:
            return value and self.again[value]
        if value.const_value is not None:
            return self.constants.in_other_shape(value) if _is_scalar(node, value) else value
        return value if self._far(value) else self._copy(value)


class _Constants:
    """Adds names and constants to a main graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        everything = ir.traversal.RecursiveGraphIterator(graph)
        self.names = {value.name for node in everything for value in node.outputs}
        self.names |= {*graph.initializers, *(value.name for value in graph.inputs)}
        self.reshaped: dict[ir.Value, ir.Value] = {}

    def unique(self, name: str) -> str:
        """Return `name`, with a number added if it is taken."""
        free = next(n for i in count() if (n := f"{name}_{i}" if i else name) not in self.names)
        self.names.add(free)
        return free

    def in_other_shape(self, value: ir.Value) -> ir.Value:
        """Return a scalar of shape () as one of shape (1,), and the reverse."""
        if value not in self.reshaped:
            assert value.const_value is not None
            array = value.const_value.numpy()
            name = self.unique(f"{value.name}_again")
            copy = initializer_of(name, array.reshape(() if array.ndim else (1,)))
            self.graph.register_initializer(copy)
            self.reshaped[value] = copy
        return self.reshaped[value]


def _merge(graph: ir.Graph) -> None:
    """Merge equal cheap nodes, as the runtime does, so that copies made here stay distinct."""
    known: dict[tuple[object, ...], ir.Value] = {}
    for node in list(graph):
        value = node.outputs[0]
        if node.op_type not in _CHEAP or value.is_graph_output():
            continue
        attributes = sorted((name, repr(a.value)) for name, a in node.attributes.items())
        key = (node.op_type, *map(_identity, node.inputs), *attributes)
        first = known.setdefault(key, value)
        if first is not value:
            value.replace_all_uses_with(first)
            graph.remove(node, safe=True)


def _identity(value: ir.Value | None) -> object:
    """Return a key for an input: the number of a scalar, or the value itself."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return value
    array = value.const_value.numpy()
    return (array.dtype.str, array.shape, array.tobytes())


def _is_scalar(node: ir.Node, value: ir.Value | None) -> bool:
    """Return whether an operand is a constant that may have the shape () or (1,)."""
    tensor = None if value is None else value.const_value
    return node.op_type in _BROADCAST and tensor is not None and tuple(tensor.shape) in ((), (1,))


def _is_large(value: ir.Value) -> bool:
    sizes = value.meta.get(SIZES) or ()
    return math.prod(size for size in sizes if isinstance(size, int)) >= _SMALLEST and bool(sizes)


def _depths(graph: ir.Graph) -> dict[ir.Node, int]:
    """Return, for each node of a graph, the number of nodes on the longest path to it."""
    depths: dict[ir.Node, int] = {}
    for node in graph:
        makers = [value.producer() for value in reads(node)]
        depths[node] = 1 + max((depths.get(m, 0) for m in makers if m is not None), default=0)
    return depths


def _times(graph: ir.Graph) -> dict[ir.Node, int]:
    """Return, for each node of a graph, when it runs at the latest: before its first reader."""
    times = _depths(graph)
    latest: dict[ir.Value, int] = {}
    for node in reversed(graph):
        wanted = [latest[value] for value in node.outputs if value in latest]
        if wanted:
            times[node] = min(wanted)
        for value in reads(node):
            latest[value] = min(latest.get(value, times[node]), times[node] - 1)
    return times
