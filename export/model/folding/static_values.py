"""Values and sizes of a graph that follow from its constants and the image's shape."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from jataug.errors import ModelError

from ...graph.builder import Dim, Shape
from ...graph.evaluate_constants import evaluate
from ...graph.shapes import PROBES, Walk, constant

__all__ = ["StaticValues", "batches", "is_control"]

_CONTROL = ("If", "Loop", "Scan")

Array = NDArray[Any]


def is_control(node: ir.Node) -> bool:
    """Return whether a node is control flow: If, Loop or Scan."""
    return not node.domain and node.op_type in _CONTROL


class StaticValues:
    """The values and sizes of a model that follow from its constants and the image's shape.

    Attributes:
        problem: why sizes cannot be inferred, if the graph does not fit the image; else empty.
    """

    def __init__(self, model: ir.Model, batches: Sequence[Dim]) -> None:
        self.model = model
        self.opsets = [onnx.helper.make_opsetid(*o) for o in model.opset_imports.items()]
        self.walks, self.problem = _walks(model, batches)
        self.names = {v.name for node in model.graph for v in node.outputs}
        self.names |= {v.name for v in model.graph.inputs} | set(model.graph.initializers)
        self._found: dict[ir.Value, Array | None] = {}

    def __call__(self, value: ir.Value | None) -> Array | None:
        """Return the array of a value, or None if it depends on the image's pixels."""
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

    def everywhere(self, value: ir.Value, number: int) -> bool:
        """Return whether every entry of a value is this number, at any batch size."""
        name = value.name or ""
        if (array := constant(value)) is not None:
            return bool((array == number).all())
        arrays = [walk.data.get(name) for walk in self.walks]
        return bool(arrays) and all(a is not None and (a == number).all() for a in arrays)

    def dtype(self, value: ir.Value) -> np.dtype[Any] | None:
        """Return the element type of a value, or None if it cannot be inferred."""
        infos = [walk.infos.get(value.name or "") for walk in self.walks]
        info = infos[0] if infos else None
        return info.dtype.numpy() if info is not None else None

    def rank(self, value: ir.Value) -> int | None:
        """Return the number of a value's axes, or None if it cannot be inferred."""
        if (array := constant(value)) is not None:
            return int(array.ndim)
        infos = [walk.infos.get(value.name or "") for walk in self.walks]
        return None if not infos or infos[0] is None else len(infos[0].shape)

    def size(self, value: ir.Value | None, axis: int) -> int | None:
        """Return the size of an axis, or None if it is the batch or cannot be inferred."""
        if (array := constant(value)) is not None:
            return int(array.shape[axis])
        name = "" if value is None else value.name or ""
        infos = [walk.infos.get(name) for walk in self.walks]
        sizes: set[Dim] = {"?" if info is None else info.shape[axis] for info in infos}
        only = sizes.pop() if len(sizes) == 1 else "?"
        return only if isinstance(only, int) else None


def batches(model: ir.Model) -> list[list[Dim]]:
    """Return the batch sizes to infer shapes at: two together, then the file's own."""
    image = _image(model)
    declared = image.shape[0] if image is not None and image.shape else None
    first: list[list[Dim]] = [list(PROBES)]
    return [*first, [declared]] if isinstance(declared, int) else first


def _image(model: ir.Model) -> ir.Value | None:
    weights: Mapping[str, ir.Value] = model.graph.initializers
    return next((v for v in model.graph.inputs if v.name not in weights), None)


def _walks(model: ir.Model, batches: Sequence[Dim]) -> tuple[list[Walk], str]:
    """Walk the graph at each batch size. If it holds another, return no walks and the reason."""
    image = _image(model)
    if image is None or image.shape is None:
        return [], ""
    sizes: list[Dim] = [d if isinstance(d, int) else "?" for d in image.shape]
    try:
        return [_walk(model, image.name or "", (n, *sizes[1:])) for n in batches], ""
    except ModelError as error:
        return [], str(error)


def _walk(model: ir.Model, image: str, shape: Shape) -> Walk:
    walk = Walk(model, image, shape)
    for node in model.graph:
        # The outputs of control flow are unknown until it is replaced.
        if not is_control(node):
            walk.visit(node)
    return walk
