"""Shape inference that never loses the batch: every shape is inferred at two batch sizes and
compared.

Inference with a symbolic batch drops its name after some broadcasts and reshapes. At a concrete
batch everything is a
number; a size that grows with the batch is the batch, or a multiple of it.
"""

from dataclasses import dataclass

import onnx
import onnx_ir as ir

from jataug.errors import ModelError

from .graph import Dim, Shape

__all__ = ["BATCH", "Info", "infer_shapes"]

BATCH = "N"

_PROBES = (6, 7)
"""Two batch sizes; coincidences with other sizes do not matter, only the difference counts."""

_LARGE = 1024
"""Constants with more entries than this are weights, whose numbers no shape depends on."""


@dataclass(frozen=True)
class Info:
    """The element type and shape of a value."""

    dtype: ir.DataType
    shape: Shape


def infer_shapes(model: ir.Model, image: str, shape: Shape) -> dict[str, Info]:
    """Return type and shape of every value, by name; a size that follows the batch is "N", "2N",
    ...

    Args:
        model: its image input's first axis is the batch.
        image: the name of the image input.
        shape: the image's shape; shape[0] is BATCH, or a number for a model of fixed batch.

    Raises:
        ModelError: inference fails, for example because the graph holds another batch size.
    """
    if shape[0] != BATCH:
        return _infer(model, image, shape)
    first, second = (_infer(model, image, (n, *shape[1:])) for n in _PROBES)
    return {
        name: Info(info.dtype, tuple(map(_symbolic, info.shape, second[name].shape)))
        for name, info in first.items()
        if name in second and len(info.shape) == len(second[name].shape)
    }


def _symbolic(a: Dim, b: Dim) -> Dim:
    if a == b or isinstance(a, str) or isinstance(b, str):
        return a
    multiple = b - a
    if multiple * _PROBES[0] != a:
        return "?"
    return BATCH if multiple == 1 else f"{multiple}{BATCH}"


def _infer(model: ir.Model, image: str, shape: Shape) -> dict[str, Info]:
    proto = _skeleton(model)
    for value in proto.graph.input:
        if value.name == image:
            tensor = value.type.tensor_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(image, tensor.elem_type, shape))
    try:
        inferred = onnx.shape_inference.infer_shapes(
            proto, check_type=True, strict_mode=True, data_prop=True
        )
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"shape inference at image shape {shape} fails: {reason}") from None
    graph = inferred.graph
    found = {t.name: Info(ir.DataType(t.data_type), tuple(t.dims)) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            dims = tensor.shape.dim
            sizes = (d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims)
            found[value.name] = Info(ir.DataType(tensor.elem_type), tuple(sizes))
    return found


def _skeleton(model: ir.Model) -> onnx.ModelProto:
    """Return the model without its weights' numbers and without shapes that were declared for
    another batch.
    """
    weights = []
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and tensor.size > _LARGE:
            weights.append((name, value))
    for name, _ in weights:
        del model.graph.initializers[name]
    try:
        proto = ir.to_proto(model)
    finally:
        for _, value in weights:
            model.graph.register_initializer(value)
    for name, value in weights:
        dims = [d for d in value.shape or () if isinstance(d, int)]
        proto.graph.input.append(
            onnx.helper.make_tensor_value_info(name, int(value.dtype or 1), dims)
        )
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return proto
