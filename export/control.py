"""Control flow that does not depend on what the image shows: branches chosen, loops unrolled.

1. If with a known condition gives way to the branch it takes.
2. Loop whose trip count is known, or whose condition can be computed, is written out.
3. Scan is written out: its trip count is a size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from jataug.errors import ModelError, UnsupportedOperator

from .graph import Dim, Shape
from .shapes import PROBES, Walk, constant, evaluate

__all__ = ["MOST_ITERATIONS", "inline_control"]

MOST_ITERATIONS = 1000
"""A longer loop is refused: its graph would be that many copies of its body."""

_CONTROL = ("If", "Loop", "Scan")

Array = NDArray[Any]


def inline_control(model: ir.Model) -> bool:
    """Replace the control-flow nodes of the main graph, in place, and tell whether there were any.

    Those inside their bodies come to light with that: call it until nothing changes.

    Raises:
        UnsupportedOperator: none could be replaced, and one is left that the outputs need.
    """
    if not any(_is_control(node) for node in model.graph):
        return False
    common.RemoveUnusedNodesPass()(model)
    found = [node for node in model.graph if _is_control(node)]
    left: list[str] = []
    for batches in _batches(model):
        known = Known(model, batches)
        reasons = [_WRITTEN[node.op_type](Place(known, node), known) for node in found]
        left = [reason for reason in reasons if reason is not None]
        if len(left) < len(found):
            return True
    if left:
        raise UnsupportedOperator(left[0])
    return False


def _is_control(node: ir.Node) -> bool:
    return not node.domain and node.op_type in _CONTROL


class Known:
    """The values and sizes of a model that follow from its constants and the image's shape."""

    def __init__(self, model: ir.Model, batches: Sequence[Dim]) -> None:
        self.model = model
        self.opsets = [onnx.helper.make_opsetid(*o) for o in model.opset_imports.items()]
        self.walks = _walks(model, batches)
        self.names = {v.name for node in model.graph for v in node.outputs}
        self.names |= {v.name for v in model.graph.inputs} | set(model.graph.initializers)
        self._found: dict[ir.Value, Array | None] = {}

    def __call__(self, value: ir.Value | None) -> Array | None:
        """Return the array of a value, None where it depends on data."""
        if value is None:
            return None
        if value not in self._found:
            self._found[value] = self._compute(value)
        return self._found[value]

    def _compute(self, value: ir.Value) -> Array | None:
        if (array := constant(value)) is not None:
            return array
        name = value.name or ""
        arrays = [walk.data[name] for walk in self.walks if name in walk.data]
        if len(arrays) == len(self.walks) > 0 and np.array_equal(arrays[0], arrays[-1]):
            return arrays[0]
        node = value.producer()
        if node is None or node.domain or node.op_type in _CONTROL:
            return None
        feeds = {v.name or "": self(v) for v in node.inputs if v is not None}
        if node.op_type != "Constant" and not feeds:
            return None
        inputs = {name: array for name, array in feeds.items() if array is not None}
        found = (
            evaluate(ir.to_proto(node), inputs, self.opsets) if len(inputs) == len(feeds) else None
        )
        named = [v for v in node.outputs if v.name]
        return None if found is None else found[named.index(value)]

    def size(self, value: ir.Value | None, axis: int) -> int | None:
        """Return the size of an axis, None where it is the batch or not known."""
        if (array := constant(value)) is not None:
            return int(array.shape[axis])
        name = "" if value is None else value.name or ""
        infos = [walk.infos.get(name) for walk in self.walks]
        sizes: set[Dim] = {"?" if info is None else info.shape[axis] for info in infos}
        only = sizes.pop() if len(sizes) == 1 else "?"
        return only if isinstance(only, int) else None


def _batches(model: ir.Model) -> list[list[Dim]]:
    """Return the batch sizes to learn from: two at once, then the one that the file declares."""
    image = _image(model)
    declared = image.shape[0] if image is not None and image.shape else None
    first: list[list[Dim]] = [list(PROBES)]
    return [*first, [declared]] if isinstance(declared, int) else first


def _image(model: ir.Model) -> ir.Value | None:
    weights: Mapping[str, ir.Value] = model.graph.initializers
    return next((v for v in model.graph.inputs if v.name not in weights), None)


def _walks(model: ir.Model, batches: Sequence[Dim]) -> list[Walk]:
    """Visit the graph at each batch size; at none if it holds another one."""
    image = _image(model)
    if image is None or image.shape is None:
        return []
    sizes: list[Dim] = [d if isinstance(d, int) else "?" for d in image.shape]
    try:
        return [_walk(model, image.name or "", (n, *sizes[1:])) for n in batches]
    except ModelError:
        return []


def _walk(model: ir.Model, image: str, shape: Shape) -> Walk:
    walk = Walk(model, image, shape)
    for node in model.graph:
        # What comes out of control flow is not known before it is replaced.
        if not _is_control(node):
            walk.visit(node)
    return walk


class Place:
    """The spot of a control-flow node, where copies of its bodies and small nodes are written."""

    def __init__(self, known: Known, node: ir.Node) -> None:
        self.graph, self.node, self.names = known.model.graph, node, known.names
        self.name = node.name or node.outputs[0].name or node.op_type

    def body(self, attribute: str) -> ir.Graph:
        return self.node.attributes[attribute].as_graph()

    def number(self, attribute: str, default: Any) -> Any:
        found = self.node.attributes.get(attribute)
        return default if found is None else found.value

    def copy(self, body: ir.Graph, inputs: Sequence[ir.Value]) -> list[ir.Value]:
        """Write the body before the node, reading `inputs`; return its outputs."""
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
        """Write a node before the node; return its output, or its outputs."""
        node = ir.node(op_type, list(inputs), attributes or None, num_outputs=outputs)
        node.name = self._unique(op_type)
        for value in node.outputs:
            value.name = self._unique(op_type)
        self.graph.insert_before(self.node, node)
        return node.outputs[0] if outputs == 1 else list(node.outputs)

    def constant(self, array: Any) -> ir.Value:
        name = self._unique("const")
        tensor = ir.Tensor(np.array(array, order="C"), name=name)
        shape, kind = ir.Shape(tensor.shape), ir.TensorType(tensor.dtype)
        value = ir.Value(name=name, shape=shape, type=kind, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def replace(self, results: Sequence[ir.Value]) -> None:
        """Let the node's readers read `results`, and remove it."""
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


def _if(place: Place, known: Known) -> str | None:
    condition = known(place.node.inputs[0])
    if condition is None:
        return place.refusal("its condition is data; only a constant one has a derivative")
    branch = "then_branch" if condition.reshape(-1)[0] else "else_branch"
    place.replace(place.copy(place.body(branch), []))
    return None


def _loop(place: Place, known: Known) -> str | None:
    trips, condition, *carried = place.node.inputs
    body, most = place.body("body"), known(trips)
    going = np.array(True) if condition is None else known(condition)
    if (trips is not None and most is None) or going is None:
        return place.refusal("its trip count is data; only a constant one has a derivative")
    limit = None if most is None else int(most.reshape(-1)[0])
    state: list[Any] = list(carried)
    rows: list[list[ir.Value]] = []
    while bool(going.reshape(-1)[0]) and (limit is None or len(rows) < limit):
        if len(rows) == MOST_ITERATIONS:
            return place.refusal(f"it runs more than {MOST_ITERATIONS} times")
        step = place.constant(np.array(len(rows), np.int64))
        proceed, *results = place.copy(body, [step, place.constant(going), *state])
        state, row = results[: len(carried)], results[len(carried) :]
        rows.append(row)
        following = known(proceed)
        if following is None:
            return place.refusal("whether it goes on is data; only a constant trip count will do")
        going = following
    if not rows and len(place.node.outputs) > len(carried):
        return place.refusal("it runs no iteration, and what it collects has no known shape")
    collected = [_stacked(place, column, 0) for column in zip(*rows, strict=True)]
    place.replace([*state, *collected])
    return None


def _scan(place: Place, known: Known) -> str | None:
    node, body = place.node, place.body("body")
    count = int(place.number("num_scan_inputs", 0))
    state: list[Any] = list(node.inputs[: len(node.inputs) - count])
    scanned = list(node.inputs[len(state) :])
    outputs = len(node.outputs) - len(state)
    axes = place.number("scan_input_axes", None) or [0] * count
    backward = place.number("scan_input_directions", None) or [0] * count
    trips = known.size(scanned[0], axes[0])
    if trips is None:
        return place.refusal("its trip count is the batch or data; only a constant one will do")
    if not 0 < trips <= MOST_ITERATIONS:
        return place.refusal(f"it runs {trips} times; 1 to {MOST_ITERATIONS} are written out")
    parts = [
        _apart(place, value, axis, trips)[:: -1 if reverse else 1]
        for value, axis, reverse in zip(scanned, axes, backward, strict=True)
    ]
    rows: list[list[ir.Value]] = []
    for entries in zip(*parts, strict=True):
        results = place.copy(body, [*state, *entries])
        state, row = results[: len(state)], results[len(state) :]
        rows.append(row)
    axes = place.number("scan_output_axes", None) or [0] * outputs
    backward = place.number("scan_output_directions", None) or [0] * outputs
    collected = [
        _stacked(place, column[:: -1 if reverse else 1], axis)
        for column, axis, reverse in zip(zip(*rows, strict=True), axes, backward, strict=True)
    ]
    place.replace([*state, *collected])
    return None


_WRITTEN = {"If": _if, "Loop": _loop, "Scan": _scan}


def _stacked(place: Place, entries: Sequence[ir.Value], axis: int) -> ir.Value:
    axes = place.constant(np.array([axis], np.int64))
    rows = [place.op("Unsqueeze", entry, axes) for entry in entries]
    stack: ir.Value = place.op("Concat", *rows, axis=axis)
    return stack


def _apart(place: Place, value: Any, axis: int, count: int) -> list[ir.Value]:
    axes = place.constant(np.array([axis], np.int64))
    if count == 1:
        return [place.op("Squeeze", value, axes)]
    parts = place.op("Split", value, outputs=count, axis=axis, num_outputs=count)
    return [place.op("Squeeze", part, axes) for part in parts]
