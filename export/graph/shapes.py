"""Shape inference that never loses the batch: it runs at two batch sizes and compares the shapes.

ONNX's inference with a symbolic batch drops its name after some broadcasts and reshapes. At a
concrete batch size every size is a number, and values that are computed from shapes are constants.
A size that grows with the batch is the batch, or a multiple of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from jataug.errors import ModelError

from .builder import Dim, Shape
from .evaluate_constants import evaluate
from .pool_size import pool_size
from .quantised_values import float_node

__all__ = [
    "BATCH",
    "PROBES",
    "Info",
    "Walk",
    "constant",
    "infer_shapes",
    "is_random",
    "merged",
]

BATCH = "N"

MIXED = "?N"
"""A size that changes with the batch and is not a multiple of it."""

PROBES = (6, 7)
"""The two batch sizes. They may equal other sizes of a model, because only differences count."""

_LARGE = 1024
"""Constants with more entries than this are taken for weights, on which no shape depends."""

_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}

Array = NDArray[Any]


@dataclass(frozen=True)
class Info:
    """The element type and shape of a value."""

    dtype: ir.DataType
    shape: Shape


def infer_shapes(model: ir.Model, image: str, shape: Shape) -> dict[str, Info]:
    """Return type and shape of every value, by name.

    A size that follows the batch is "N", "2N" and so on. A size that cannot be inferred is "?".

    Args:
        model: the model; the first axis of its image input is the batch.
        image: the name of the image input.
        shape: the image's shape; shape[0] is BATCH, or a number for a model of fixed batch.

    Raises:
        ModelError: inference fails, for example because the graph holds another batch size.
    """
    if shape[0:1] != (BATCH,):
        return Walk(model, image, shape).run().infos
    first, second = (Walk(model, image, (n, *shape[1:])).run().infos for n in PROBES)
    return merged(first, second)


def merged(first: Mapping[str, Info], second: Mapping[str, Info]) -> dict[str, Info]:
    """Return shapes with a symbolic batch, from the shapes at two batch sizes."""
    return {
        name: Info(info.dtype, tuple(map(_symbolic, info.shape, second[name].shape)))
        for name, info in first.items()
        if name in second and len(info.shape) == len(second[name].shape)
    }


def _symbolic(a: Dim, b: Dim) -> Dim:
    if a == b or isinstance(a, str) or isinstance(b, str):
        return a
    multiple = b - a
    if multiple * PROBES[0] != a:
        return MIXED
    return BATCH if multiple == 1 else f"{multiple}{BATCH}"


class Walk:
    """Infers types, shapes and small constants of a graph at one batch size, node by node.

    Attributes:
        infos: type and shape, by name; a size that cannot be inferred is "?".
        data: the values that depend on the image's shape only, not on its pixels.
        batch: the size of the image's first axis.
    """

    def __init__(self, model: ir.Model, image: str, shape: Shape) -> None:
        self._model = model
        self._opsets = [onnx.helper.make_opsetid(*o) for o in model.opset_imports.items()]
        self._image, self._shape = image, shape
        self.batch: Dim = shape[0] if shape else 1
        self.infos: dict[str, Info] = {}
        self.data: dict[str, Array] = {}
        for value in (*model.graph.inputs, *model.graph.initializers.values()):
            self.learn(value)

    def learn(self, value: ir.Value) -> None:
        """Record the type and shape of a graph input or an initializer."""
        name = value.name or ""
        known = constant(value)
        if known is not None and known.size <= _LARGE:
            self.data[name] = known
        if name == self._image:
            self.infos[name] = Info(value.dtype or ir.DataType.FLOAT, self._shape)
        elif value.dtype is not None and value.shape is not None:
            dims = (d if isinstance(d, int) else "?" for d in value.shape)
            self.infos[name] = Info(value.dtype, tuple(dims))

    def run(self) -> "Walk":
        """Visit every node; return the walk.

        Raises:
            ModelError: a node's inputs do not fit together.
        """
        for node in self._model.graph:
            self.visit(node)
        return self

    def visit(self, node: ir.Node) -> None:
        """Infer the outputs of a node whose inputs were visited.

        Raises:
            ModelError: the inputs do not fit together.
        """
        proto = ir.to_proto(node)
        for name, info in self._infer(node, proto).items():
            self.infos[name] = info
        self._count_compressed(node)
        self._correct_size(node)
        self._fill_from_declared(node)
        self._check_reshape(node)
        self._compute(node, proto)

    def _infer(self, node: ir.Node, proto: onnx.NodeProto) -> dict[str, Info]:
        if (stand_in := float_node(node, proto)) is not None:
            return self._infer_quantised(node, *stand_in)
        schema = _schema(self._model, node)
        if schema is None:
            return {}
        if not schema.has_type_and_shape_inference_function:  # the few that keep their shape
            source = self.infos.get(_name(node.inputs[0])) if node.inputs else None
            return {} if source is None else {_name(node.outputs[0]): source}
        captured = set().union(*map(_captured, node.attributes.values()), proto.input)
        types = {name: _type(self.infos[name]) for name in captured if name in self.infos}
        if not types.keys() >= set(filter(None, proto.input)):
            return {}
        data = {
            name: onnx.numpy_helper.from_array(self.data[name], name)
            for name in proto.input
            if name in self.data and self.data[name].dtype.kind in "iufb"
        }
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, proto, types, data, opset_imports=self._opsets
            )
        except (
            onnx.shape_inference.InferenceError,
            onnx.checker.ValidationError,
            RuntimeError,
        ) as error:
            raise ModelError(_misfit(node, self._shape, error)) from None
        return {n: info for n, t in found.items() if (info := _info(t)) is not None}

    def _infer_quantised(
        self, node: ir.Node, proto: onnx.NodeProto | None, typed: str
    ) -> dict[str, Info]:
        """Infer the result of an op of a runtime's own domain, from its float op or first input."""
        shape, source = None, self.infos.get(_name(node.inputs[0]))
        if proto is None:
            shape = source.shape if source else None
        elif all(name in self.infos for name in proto.input):
            types = {
                name: _type(Info(ir.DataType.FLOAT, self.infos[name].shape)) for name in proto.input
            }
            schema = onnx.defs.get_schema(proto.op_type, self._model.opset_imports[""], "")
            try:
                found = onnx.shape_inference.infer_node_outputs(schema, proto, types)
            except (onnx.shape_inference.InferenceError, RuntimeError) as error:
                raise ModelError(_misfit(node, self._shape, error)) from None
            known = _info(found[proto.output[0]])
            shape = known.shape if known else None
        kind = self.infos.get(typed)
        if shape is None or kind is None:
            return {}
        return {_name(node.outputs[0]): Info(kind.dtype, shape)}

    def _count_compressed(self, node: ir.Node) -> None:
        """Set the result size of Compress from its mask, which onnx's inference ignores."""
        if node.op_type != "Compress" or node.domain:
            return
        source, mask = (_name(value) for value in node.inputs)
        if source not in self.infos or mask not in self.data:
            return
        kept = int(self.data[mask].sum())
        sizes: list[Dim] = [kept]
        if "axis" in node.attributes:
            sizes = list(self.infos[source].shape)
            sizes[node.attributes["axis"].as_int()] = kept
        self.infos[_name(node.outputs[0])] = Info(self.infos[source].dtype, tuple(sizes))

    def _correct_size(self, node: ir.Node) -> None:
        """Set the size of a pool as runtimes have it, and of MaxUnpool from its last input."""
        source, name = _name(node.inputs[0] if node.inputs else None), _name(node.outputs[0])
        if source not in self.infos or node.domain:
            return
        info, found = self.infos[source], self.infos.get(name)
        if found is not None and (sizes := pool_size(node, info.shape, found.shape)):
            for value in node.outputs:
                if (known := self.infos.get(_name(value))) is not None:
                    self.infos[_name(value)] = Info(known.dtype, tuple(sizes))
        wanted = _name(node.inputs[2]) if len(node.inputs) > 2 else ""
        if node.op_type == "MaxUnpool" and wanted in self.data:
            self.infos[name] = Info(info.dtype, tuple(self.data[wanted].tolist()))

    def _fill_from_declared(self, node: ir.Node) -> None:
        """Use the file's declared shape where inference finds none, as for custom operators."""
        for value in node.outputs:
            known, declared = self.infos.get(_name(value)), value.shape
            if declared is None or value.dtype is None or (known and "?" not in known.shape):
                continue
            sizes: list[Dim] = [d if isinstance(d, int) else "?" for d in declared]
            if sizes and not isinstance(declared[0], int):
                sizes[0] = "?" if _schema(self._model, node) else self.batch
            if known is not None and len(known.shape) == len(sizes):
                sizes = [s if k == "?" else k for k, s in zip(known.shape, sizes, strict=True)]
            self.infos[_name(value)] = Info(value.dtype, tuple(sizes))

    def _check_reshape(self, node: ir.Node) -> None:
        """Refuse a Reshape that changes the number of entries, which onnx's inference allows."""
        if node.op_type != "Reshape" or node.domain:
            return
        before, after = (self._size(v) for v in (node.inputs[0], node.outputs[0]))
        if before is not None and after is not None and before != after:
            raise ModelError(
                f"Reshape (node {node.name!r}): {before} entries do not fit into {after} at image "
                f"shape {self._shape}"
            )

    def _size(self, value: ir.Value | None) -> int | None:
        info = self.infos.get(_name(value))
        sizes = info.shape if info else ("?",)
        return None if "?" in sizes else int(np.prod([int(s) for s in sizes]))

    def _compute(self, node: ir.Node, proto: onnx.NodeProto) -> None:
        """Compute small values that depend on shapes and constants only."""
        names = [_name(v) for v in node.inputs if v is not None]
        if node.op_type in ("Shape", "Size") and not node.domain:
            self._compute_shape(node, self.infos.get(names[0]))
            return
        sizes = [self._size(v) for v in node.outputs if v.name]
        if node.domain or is_random(node) or any(map(_captured, node.attributes.values())):
            return
        if not names or any(size is None or size > _LARGE for size in sizes):
            return
        if all(name in self.data for name in names):
            arrays = evaluate(proto, {name: self.data[name] for name in names}, self._opsets)
            self.data.update(zip(filter(None, proto.output), arrays or [], strict=False))

    def _compute_shape(self, node: ir.Node, info: Info | None) -> None:
        if info is None or "?" in info.shape:
            return
        sizes = np.array(info.shape, np.int64)
        if node.op_type == "Size":
            sizes = np.array(sizes.prod(), np.int64)
        else:
            bounds = (node.attributes.get(key) for key in ("start", "end"))
            sizes = sizes[slice(*(None if b is None else b.as_int() for b in bounds))]
        self.data[_name(node.outputs[0])] = sizes


def _misfit(node: ir.Node, shape: Shape, error: Exception) -> str:
    reason = " ".join(str(error).split())
    return (
        f"{node.op_type} (node {node.name!r}): its inputs do not fit together at image shape "
        f"{shape}: {reason}"
    )


def constant(value: ir.Value | None) -> Array | None:
    """Return the array of a constant value, or None for a computed one."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()


def is_random(node: ir.Node) -> bool:
    """Return whether an op draws random numbers."""
    return not node.domain and node.op_type in _RANDOM


def _captured(attribute: ir.Attr) -> set[str]:
    """Return the names that a node's subgraph may take from outside."""
    if attribute.type != ir.AttributeType.GRAPH:
        return set()
    names = {_name(v) for v in attribute.as_graph().outputs}
    for node in attribute.as_graph():
        names.update(_name(v) for v in node.inputs)
        names |= set().union(*map(_captured, node.attributes.values()))
    return names


def _schema(model: ir.Model, node: ir.Node) -> onnx.defs.OpSchema | None:
    version = model.opset_imports.get(node.domain)
    if version is None or not onnx.defs.has(node.op_type, version, node.domain):
        return None
    return onnx.defs.get_schema(node.op_type, version, node.domain)


def _type(info: Info) -> onnx.TypeProto:
    dims = [None if size == "?" else size for size in info.shape]
    return onnx.helper.make_tensor_type_proto(int(info.dtype), dims)


def _info(found: onnx.TypeProto) -> Info | None:
    tensor = found.tensor_type
    if not found.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    sizes = (d.dim_value if d.HasField("dim_value") else "?" for d in tensor.shape.dim)
    return Info(ir.DataType(tensor.elem_type), tuple(sizes))


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""
