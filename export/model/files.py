"""ONNX files as they come: read, and brought into one form.

1. Weights in external data are read, from the model's own folder only.
2. Sparse weights become dense ones.
3. The model's own functions are inlined.
4. The domain "ai.onnx" is written "", nodes get distinct names, and come in an order that runs.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from jataug.errors import ModelError

__all__ = ["normalized", "read_model"]

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
    info = ExternalDataInfo(tensor)
    where = f"{path}: weight {tensor.name!r}: its data file {info.location!r}"
    folder = path.parent.resolve()
    parts = {*PurePosixPath(info.location).parts, *PureWindowsPath(info.location).parts}
    rooted = PurePosixPath(info.location).anchor or PureWindowsPath(info.location).anchor
    source = folder / info.location
    if not info.location or rooted or ".." in parts:
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
            that was not loaded.
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
            if ready.issuperset(_reads(node)):
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
        for name in _reads(node):
            if name not in made:
                raise ModelError(
                    f"{node.op_type} (node {node.name!r}) reads {name!r}, which nothing makes"
                )
    for output in graph.output:
        if output.name not in made:
            raise ModelError(f"nothing makes the output {output.name!r}")


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return the values that a node takes, those that its subgraphs capture included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            own = {t.name for t in graph.initializer} | {v.name for v in graph.input}
            own.update(name for inner in graph.node for name in inner.output)
            inside = set[str]().union(*map(_reads, graph.node), (v.name for v in graph.output))
            names |= inside - own
    return names - {""}
