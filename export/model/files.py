"""ONNX files as they come: read, and brought into one form.

1. Weights in external data are read, from the model's own folder only.
2. Sparse weights become dense ones.
3. The model's own functions are inlined.
4. The domain "ai.onnx" is written "", nodes get distinct names, and come in an order that runs.
5. Outputs that are no tensors are left out, where another value is asked for.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from jataug.artifact import needed_nodes, reads
from jataug.errors import ModelError

__all__ = ["keep_tensors", "normalized", "read_model"]

_TORCH = 'torch.onnx.export(module.eval(), (images,), "model.onnx", dynamo=True)'
_KERAS = 'model.export("model.onnx", format="onnx")'
_EXPORT = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt", ".safetensors"), f"PyTorch's? {_TORCH}"),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), f"Keras's? {_KERAS}"),
    ".tflite": "TensorFlow Lite's? convert it with tf2onnx",
}
"""What people have in place of an ONNX file, by suffix, and how it becomes one."""

_MOST = 2**31 - 1
"""Bytes: what protobuf can write, and a runtime can be given."""


def read_model(path: Path) -> onnx.ModelProto:
    """Return the model of a file, its external data included.

    Raises:
        ModelError: the file is missing, truncated or no ONNX model; its external data is missing,
            too short, or outside the model's folder.
    """
    if path.is_dir():
        raise ModelError(
            f"{path}: expected an .onnx file, found a folder; a run of `jataug train` becomes a "
            f"file by `jataug export {path} -o attack.onnx --save-model model.onnx`"
        )
    if not path.is_file():
        raise ModelError(f"{path}: expected an .onnx file, found none")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: not a readable ONNX file ({_guess(path)}): {reason}") from None
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(f"{path}: expected an ONNX model, found an empty graph ({_guess(path)})")
    for tensor in _external(proto):
        _read_external(tensor, path)
    return proto


def _guess(path: Path) -> str:
    return _EXPORT.get(path.suffix.lower(), "truncated?")


def _read_external(tensor: TensorProto, path: Path) -> None:
    try:
        info = ExternalDataInfo(tensor)
    except ValueError as error:
        raise ModelError(f"{path}: weight {tensor.name!r} in a data file: {error}") from None
    if not info.location:
        raise ModelError(f"{path}: weight {tensor.name!r} names no data file")
    where = f"{path}: weight {tensor.name!r}: its data file {info.location!r}"
    folder = path.parent.resolve()
    parts = {*PurePosixPath(info.location).parts, *PureWindowsPath(info.location).parts}
    rooted = PurePosixPath(info.location).anchor or PureWindowsPath(info.location).anchor
    source = folder / info.location
    if rooted or ".." in parts:
        raise ModelError(f"{where} is outside the model's folder")
    if source.exists() and not source.resolve().is_relative_to(folder):
        raise ModelError(f"{where} is a link that leaves the model's folder")
    if not source.is_file():
        raise ModelError(f"{where} does not exist")
    first = info.offset or 0
    if source.stat().st_size < first + (info.length or 0):
        raise ModelError(f"{where} is too short (truncated?)")
    try:
        load_external_data_for_tensor(tensor, str(folder))
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
        numpy_helper.to_array(tensor)
    except (ValueError, OSError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{where} cannot be read: {reason}") from None


def _external(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    return (t for t in _tensors(proto) if t.data_location == TensorProto.EXTERNAL)


def _tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        yield from attribute.tensors
        if attribute.HasField("t"):
            yield attribute.t
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)


def normalized(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in the form that the rest of this package expects.

    Raises:
        ModelError: the graph is no valid one: a cycle, a value that two nodes make or none, data
            that was not loaded or does not fit its shape, layouts of one processor.
    """
    for tensor in _external(proto):
        raise ModelError(
            f"weight {tensor.name!r} is in a data file that was not loaded; give the model's path, "
            "or onnx.load it with its external data"
        )
    if proto.ByteSize() > _MOST:
        raise ModelError(
            f"the model has {proto.ByteSize() / 1e9:.1f} GB; at most 2 GB can be differentiated"
        )
    _check_weights(proto)
    _check_domains(proto)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.metadata_props[:]
    if copy.functions:  # before onnx's version converter, which leaves them out
        copy = onnx.inliner.inline_local_functions(copy, convert_version=True)
    for entry in copy.opset_import:
        entry.domain = _domain(entry.domain)
    for i, node in enumerate(copy.graph.node):
        node.domain = _domain(node.domain)
        _densify_constant(node)
        node.name = node.name or f"{node.op_type}_{i}"
    for sparse in copy.graph.sparse_initializer:
        copy.graph.initializer.append(_dense(sparse))
    del copy.graph.sparse_initializer[:]
    _distinct_names(copy.graph)
    _sort(copy.graph)
    return copy


def keep_tensors(proto: onnx.ModelProto, of: str | None) -> None:
    """Leave out, in place, the outputs that are maps or sequences, and the nodes of these alone.

    Args:
        proto: as `normalized` returns it.
        of: the value that is asked for; None for the only output.

    Raises:
        ModelError: it is made by an operator of ai.onnx.ml, which has no derivative.
    """
    graph = proto.graph
    makers = {name: node for node in graph.node for name in node.output}
    others = [v.name for v in graph.output if v.type.WhichOneof("value") not in (None, _TENSOR)]
    wanted = of or (others[0] if others else graph.output[0].name if graph.output else "")
    path = needed_nodes(graph, {wanted})
    learned = [node for node in path if node.domain == _CLASSIC]
    if learned and (of or others or len(graph.output) == 1):
        node = learned[-1]
        raise ModelError(
            f"output {wanted!r} is made by {node.op_type} (node {node.name!r}, domain "
            f"{_CLASSIC}), which has no derivative; "
            + (
                f"name the values before it with --logits {node.input[0]}, or convert the model "
                "without it (skl2onnx: options={'zipmap': False})"
                if node.op_type == "ZipMap" and len(learned) == 1
                else "convert the model to tensor operators, for example with hummingbird-ml, or "
                "name values that no such operator makes with --logits"
            )
        )
    if not others:
        return
    if wanted in others:
        kind = makers[wanted].op_type if wanted in makers else "the graph"
        raise ModelError(
            f"output {wanted!r}, made by {kind}, is no tensor; name the logits with --logits"
        )
    kept = [value for value in graph.output if value.name not in others]
    nodes = needed_nodes(graph, {wanted, *(value.name for value in kept)})
    values = [value for value in graph.value_info if value.type.WhichOneof("value") == _TENSOR]
    lists: Any = ((graph.node, nodes), (graph.output, kept), (graph.value_info, values))
    for field, left in lists:
        names = {item.name for item in left}
        for i in reversed(range(len(field))):
            if field[i].name not in names:
                del field[i]
    if not graph.output:
        graph.output.add().name = wanted


_TENSOR = "tensor_type"
_CLASSIC = "ai.onnx.ml"


def _check_weights(proto: onnx.ModelProto) -> None:
    for tensor in _tensors(proto):
        try:
            numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"the model is not valid: weight {tensor.name!r} of data type {tensor.data_type} "
                f"and shape {tuple(tensor.dims)} cannot be read (cut short?): {reason}; export it "
                "again"
            ) from None


def _check_domains(proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        if node.domain == "com.microsoft.nchwc":
            raise ModelError(
                f"{node.op_type} (node {node.name!r}, domain {node.domain}): ONNX Runtime has "
                "optimised this file for one processor; use the original file"
            )


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _distinct_names(graph: onnx.GraphProto) -> None:
    seen: set[str] = set()
    for node in graph.node:
        name, count = node.name, 1
        while node.name in seen:
            count += 1
            node.name = f"{name}_{count}"
        seen.add(node.name)


def _densify_constant(node: onnx.NodeProto) -> None:
    if node.op_type != "Constant" or node.domain:
        return
    for attribute in node.attribute:
        if attribute.name == "sparse_value":
            dense = _dense(attribute.sparse_tensor)
            attribute.CopyFrom(onnx.helper.make_attribute("value", dense))


def _dense(sparse: onnx.SparseTensorProto) -> TensorProto:
    values = numpy_helper.to_array(sparse.values)
    places = numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if places.ndim == 1:
        dense.reshape(-1)[places] = values
    else:
        dense[tuple(places.T)] = values
    return numpy_helper.from_array(dense, sparse.values.name)


def _sort(graph: onnx.GraphProto) -> None:
    """Bring the nodes into an order that runs; one that does already is kept."""
    ready = {"", *(t.name for t in graph.initializer), *(v.name for v in graph.input)}
    _check_values(graph, ready)
    waiting, ordered = list(graph.node), []
    while waiting:
        left = []
        for node in waiting:
            if ready.issuperset(reads(node)):
                ordered.append(node)
                ready.update(node.output)
            else:
                left.append(node)
        if len(left) == len(waiting):
            named = ", ".join(f"{node.op_type} {node.name!r}" for node in left[:3])
            raise ModelError(f"the graph has a cycle through {named}")
        waiting = left
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(nodes)


def _check_values(graph: onnx.GraphProto, given: set[str]) -> None:
    made = set(given)
    for node in graph.node:
        for name in filter(None, node.output):
            if name in made:
                raise ModelError(f"two nodes make the value {name!r}, the second is {node.name!r}")
            made.add(name)
    for node in graph.node:
        for name in reads(node):
            if name not in made:
                raise ModelError(
                    f"{node.op_type} (node {node.name!r}) reads {name!r}, which nothing makes"
                )
    for output in graph.output:
        if output.name not in made:
            raise ModelError(f"nothing makes the output {output.name!r}")
