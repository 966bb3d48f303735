"""Models in: an .onnx file, a ModelProto or a torch module becomes a classifier that can be
differentiated.
"""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from jataug.errors import MissingExtra, ModelError
from jataug.preprocessing import Preprocessing

from .fold import fold
from .conversion import convert
from .graph import Shape
from .shapes import BATCH, Info, infer_shapes

if TYPE_CHECKING:
    import torch

__all__ = ["OPSET", "Classifier", "image_shape", "load_model", "model_digest", "prepare"]

OPSET = 18
"""Older models are converted up to this; a newer one keeps its own."""

_NEWEST = 28
"""The newest opset whose ops this version has been checked against."""


@dataclass(frozen=True)
class Classifier:
    """A folded classifier with every shape known.

    Attributes:
        nodes: in topological order, those that the outputs need.
        image: the input to differentiate with respect to.
        logits: the output to differentiate.
        outputs: all outputs that are kept.
        info: type and shape of every value, by name.
        opset: the ai.onnx version.
    """

    nodes: list[ir.Node]
    image: ir.Value
    logits: ir.Value
    outputs: list[ir.Value]
    info: dict[str, Info]
    opset: int

    @property
    def image_shape(self) -> Shape:
        """The image's shape; its first size is "N", or a number for a model of fixed batch."""
        return self.info[self.image.name or ""].shape

    @property
    def logits_shape(self) -> Shape:
        """The logits' shape."""
        return self.info[self.logits.name or ""].shape


def load_model(
    model: "str | Path | onnx.ModelProto | torch.nn.Module", example: Any = None
) -> onnx.ModelProto:
    """Return any supported model as a ModelProto.

    Args:
        model: an .onnx file, a ModelProto, or a torch module.
        example: for a torch module, an input tensor of the right shape: (batch, channel, height,
            width).

    Raises:
        ModelError: the file is missing, truncated or no ONNX file; a torch module came without an
            example.
    """
    if isinstance(model, onnx.ModelProto):
        return model
    if isinstance(model, (str, Path)):
        return _load_file(Path(model))
    return _from_torch(model, example)


def model_digest(model: onnx.ModelProto) -> str:
    """Return the sha256 of the model as it came in."""
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _load_file(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ModelError(f"{path}: expected an .onnx file, found none")
    try:
        proto = onnx.load(path)
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: not a readable ONNX file (truncated?): {reason}") from None
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(f"{path}: expected an ONNX model, found an empty graph (truncated?)")
    return proto


def _from_torch(module: Any, example: Any) -> onnx.ModelProto:
    try:
        import torch
    except ImportError:
        raise ModelError(
            f"model: expected an .onnx path or a ModelProto, got {type(module).__name__}"
        ) from None
    if not isinstance(module, torch.nn.Module):
        raise ModelError(
            "model: expected an .onnx path, a ModelProto or a torch module, got "
            f"{type(module).__name__}"
        )
    if example is None:
        raise ModelError("a torch module needs example=, an input tensor of the right shape")
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it and says so only deep inside)
    except ImportError:
        raise MissingExtra(
            "exporting a torch module needs onnxscript: pip install 'jataug[torch]'"
        ) from None
    training = module.training
    module.eval()
    # Two images: torch would take an example batch of one for a fixed size.
    pair = torch.cat([example[:1], example[:1]])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (pair,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("N")},),
                verbose=False,
                optimize=True,
            )
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        raise ModelError(f"torch.onnx.export refuses the module: {' '.join(first)}") from error
    finally:
        module.train(training)
    if program is None:
        raise ModelError("torch.onnx.export returned no model")
    return program.model_proto


def prepare(
    proto: onnx.ModelProto,
    *,
    wrt: str | None = None,
    of: str | None = None,
    preprocessing: Preprocessing | None = None,
    size: tuple[int, int] | None = None,
) -> Classifier:
    """Return the folded classifier with its shapes inferred.

    Args:
        proto: the model; it is not changed.
        wrt: the image input's name; default the only floating-point input.
        of: the name of the output to differentiate; default the only output.
        preprocessing: for a classifier: what the output is. None differentiates any output as it
            is.
        size: (height, width) for a model that leaves them open.

    Raises:
        ModelError: the model is no classifier, or its shapes cannot be inferred.
    """
    model = ir.from_proto(_at_opset(proto))
    graph = model.graph
    image = _image_input(graph, wrt)
    place = 0
    if preprocessing is None:
        place = graph.outputs.index(_output(graph, of))
    else:
        graph.outputs[:] = [_classifier_output(graph, of)]
    fold(model)
    logits = graph.outputs[place]
    if preprocessing is not None:
        logits = _as_logits(model, logits, preprocessing.outputs)
    layout = preprocessing.layout if preprocessing else "nchw"
    shape, info = _shapes(model, image, _image_shape(image, layout, size), logits.name or "")
    for value in (v for node in graph for v in node.outputs):
        if (known := info.get(value.name or "")) is not None:
            value.dtype = known.dtype
    if preprocessing is not None:
        logits = _flat(model, logits, info, shape)
    return Classifier(
        list(graph), image, logits, list(graph.outputs), info, model.opset_imports[""]
    )


def _at_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    opset = {entry.domain: entry.version for entry in proto.opset_import}.get("")
    if opset is None:
        raise ModelError("the model imports no ai.onnx opset")
    if opset > _NEWEST:
        raise ModelError(
            f"the model's opset is {opset}; the newest that is known here is {_NEWEST}"
        )
    if opset >= OPSET:
        return proto
    return convert(proto, opset, OPSET)


def _image_input(graph: ir.Graph, wrt: str | None) -> ir.Value:
    for name in list(graph.initializers):
        value = graph.initializers[name]
        if value in graph.inputs:
            graph.inputs.remove(value)
    inputs = [v for v in graph.inputs if v.dtype is not None and v.dtype.is_floating_point()]
    if wrt is not None:
        inputs = [v for v in graph.inputs if v.name == wrt]
    if len(inputs) != 1:
        named = ", ".join(f"{v.name} ({v.dtype}{v.shape})" for v in graph.inputs) or "none"
        wanted = f"named {wrt!r}" if wrt is not None else "of a floating-point type"
        raise ModelError(f"expected one input {wanted}, the model's inputs are: {named}")
    if others := [v.name for v in graph.inputs if v is not inputs[0]]:
        raise ModelError(
            f"the model needs more than an image: inputs {', '.join(map(str, others))}"
        )
    return inputs[0]


def _output(graph: ir.Graph, of: str | None) -> ir.Value:
    found = [v for v in graph.outputs if of is None or v.name == of]
    if len(found) != 1:
        named = ", ".join(str(v.name) for v in graph.outputs)
        raise ModelError(
            f"expected one output to differentiate, got {of!r}; the model has: {named}"
        )
    return found[0]


def _classifier_output(graph: ir.Graph, of: str | None) -> ir.Value:
    """Return the value that holds the logits; named, it may be any value inside the graph."""
    inner = [v for node in graph for v in node.outputs if of is not None and v.name == of]
    if inner:
        return inner[0]
    if of is None and len(graph.outputs) != 1:
        named = ", ".join(f"{v.name} {v.shape}" for v in graph.outputs)
        raise ModelError(
            f"the model has {len(graph.outputs)} outputs: {named}; name the logits with --logits"
        )
    return _output(graph, of)


def _as_logits(model: ir.Model, output: ir.Value, outputs: str) -> ir.Value:
    """Return the pre-softmax value of a model that ends in probabilities, or their logarithm."""
    graph, node = model.graph, output.producer()
    if outputs == "logits":
        return output
    if node is not None and node.op_type == "Softmax" and node.inputs[0] is not None:
        graph.outputs[:] = [node.inputs[0]]
        return node.inputs[0]
    least = ir.Value(name="jataug_least", const_value=ir.tensor(1e-30, dtype=ir.DataType.FLOAT))
    least.shape, least.dtype = ir.Shape([]), ir.DataType.FLOAT
    graph.register_initializer(least)
    positive = ir.node("Clip", [output, least])
    log = ir.node("Log", [positive.outputs[0]])
    positive.outputs[0].name, log.outputs[0].name = "jataug_positive", "jataug_log"
    graph.extend([positive, log])
    graph.outputs[:] = [log.outputs[0]]
    return log.outputs[0]


def _image_shape(image: ir.Value, layout: str, size: tuple[int, int] | None) -> list[Any]:
    if image.shape is None:
        raise ModelError(f"input {image.name!r}: its shape is not declared")
    dims = [d if isinstance(d, int) else None for d in image.shape]
    if len(dims) == 4 and size is not None:
        rows, columns = (2, 3) if layout == "nchw" else (1, 2)
        for axis, wanted in ((rows, size[0]), (columns, size[1])):
            if dims[axis] not in (None, wanted):
                raise ModelError(
                    f"--size asks for {size}, but the model's input is fixed at {dims}"
                )
            dims[axis] = wanted
    if any(d is None or d == 0 for d in dims[1:]):
        raise ModelError(
            f"input {image.name!r} has shape {image.shape}: channels, height and width must be "
            "known; "
            "give height and width with --size HEIGHT,WIDTH"
        )
    return dims


def _shapes(
    model: ir.Model, image: ir.Value, dims: list[Any], logits: str
) -> tuple[Shape, dict[str, Info]]:
    """Infer with a symbolic batch; where the graph holds a batch of its own, with that one."""
    name = image.name or ""
    try:
        shape: Shape = (BATCH, *dims[1:])
        info = infer_shapes(model, name, shape)
        if info[logits].shape[:1] == (BATCH,) or not dims[0]:
            return shape, info
    except (ModelError, KeyError) as error:
        if not dims[0]:
            raise ModelError(f"shapes cannot be inferred: {error}") from None
    fixed = (int(dims[0] or 1), *dims[1:])
    return fixed, infer_shapes(model, name, fixed)


def _flat(model: ir.Model, logits: ir.Value, info: dict[str, Info], image: Shape) -> ir.Value:
    """Return logits of shape (batch, classes); trailing axes of size 1 are dropped."""
    known = info.get(logits.name or "")
    shape = () if known is None else known.shape
    classes = shape[1] if len(shape) >= 2 else None
    if known is None or len(shape) < 2 or shape[0] != image[0] or any(d != 1 for d in shape[2:]):
        raise ModelError(
            f"output {logits.name!r} has shape {shape or 'unknown'}: expected logits of shape "
            "(batch, classes); "
            "name another output with --logits"
        )
    if not isinstance(classes, int) or classes < 2:
        raise ModelError(f"output {logits.name!r} has shape {shape}: expected at least 2 classes")
    if len(shape) == 2:
        return logits
    node = ir.node("Flatten", [logits], {"axis": 1})
    flat = node.outputs[0]
    flat.name, flat.dtype = "jataug_logits", known.dtype
    info["jataug_logits"] = Info(known.dtype, shape[:2])
    model.graph.append(node)
    model.graph.outputs[:] = [flat]
    return flat


def image_shape(network: Classifier, preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Return (channel, height, width) of the images a network takes.

    Raises:
        ModelError: they are no images of 1 or 3 channels.
    """
    if len(network.image_shape) != 4:
        raise ModelError(
            f"the image input has shape {network.image_shape}: expected rank 4, a batch of images"
        )
    _, *sizes = (int(d) if isinstance(d, int) else 0 for d in network.image_shape)
    if preprocessing.layout == "nhwc":
        sizes = [sizes[2], sizes[0], sizes[1]]
    if sizes[0] not in (1, 3):
        raise ModelError(
            f"the image input has shape {network.image_shape}: expected 1 or 3 channels in layout "
            f"{preprocessing.layout}, got {sizes[0]}; choose with --layout nchw|nhwc"
        )
    return sizes[0], sizes[1], sizes[2]
