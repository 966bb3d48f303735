"""Loads an .onnx file, a ModelProto or a torch module as a classifier to differentiate."""

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import onnx
import onnx_ir as ir

from jataug.errors import MissingExtra, ModelError, UnsupportedOperator
from jataug.preprocessing import Preprocessing

from ..graph.builder import Shape
from ..graph.shapes import BATCH, Info
from .ceil_mode import settle_pools
from .classifier import Classifier
from .conversion import convert
from .dynamic_batch import free_batch, settle, works_alike
from .files import keep_tensors, normalized, read_model
from .folding.fold import drop_unused, fold
from .head import Head, as_logits, choose_output, flatten_logits
from .independence import find_mixing, refuse_random
from .reach import require_shapes
from .validity import explain_invalid
from .weights import open_weights

if TYPE_CHECKING:
    import torch

__all__ = ["OPSET", "image_shape", "load_model", "model_digest", "prepare"]

OPSET = 18
"""Older models are converted to this opset; newer ones keep their own."""

_LARGEST = 2**30
"""The most numbers in an image, or in a batch of a fixed size."""

_NEWEST = 28
"""The newest opset whose ops this version has been checked against."""


def load_model(
    model: "str | Path | onnx.ModelProto | torch.nn.Module",
    example: Any = None,
    *,
    optimize: bool = True,
) -> onnx.ModelProto:
    """Return any supported model as a ModelProto.

    Args:
        model: an .onnx file, a ModelProto, or a torch module.
        example: for a torch module, an input tensor of the right shape: (batch, channel, height,
            width).
        optimize: let torch's exporter optimise the graph.

    Raises:
        ModelError: the file is missing, truncated or not an ONNX file; its weights are outside its
            folder; or `example` is missing for a torch module.
    """
    if isinstance(model, onnx.ModelProto):
        return model
    if isinstance(model, (str, Path)):
        return read_model(Path(model))
    return _from_torch(model, example, optimize)


def model_digest(model: onnx.ModelProto) -> str:
    """Return the sha256 of the model before any preparation."""
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _from_torch(module: Any, example: Any, optimize: bool) -> onnx.ModelProto:
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
    modes = {part: part.training for part in module.modules()}
    module.eval()
    # torch would treat an example batch of one image as a fixed size.
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
                optimize=optimize,
            )
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        raise ModelError(f"torch.onnx.export cannot export it: {' '.join(first)}") from error
    finally:
        for part, mode in modes.items():
            part.training = mode
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
    weights: Sequence[str] = (),
    opset: int = OPSET,
) -> Classifier:
    """Return the folded classifier with its shapes inferred.

    Args:
        proto: the model; it is not changed.
        wrt: the image input's name; default the only floating-point input.
        of: the name of the output to differentiate; default the only output.
        preprocessing: for a classifier, says what the output is. None differentiates any output
            unchanged.
        size: (height, width) for a model that leaves them open.
        weights: the initializers that become inputs.
        opset: older models are converted to this opset.

    Raises:
        ModelError: the model is not a classifier, or its shapes cannot be inferred.
        UnsupportedOperator: a node draws random numbers, or mixes the images of a batch.
        MissingExtra: the file's batch is fixed, and there is no ONNX Runtime to check it freed.
    """
    with explain_invalid(proto):
        proto = normalized(proto)
        keep_tensors(proto, of)
        proto = _at_opset(proto, opset)
        plan = _Plan(proto, wrt, of, preprocessing, size, tuple(weights))
        for way in _WAYS[:-1]:
            try:
                return _prepared(plan, way)
            except _OtherBatch:
                continue
        return _prepared(plan, _WAYS[-1])


_Way = Literal["as it is", "freed", "fixed"]
_WAYS: tuple[_Way, ...] = get_args(_Way)
"""What is done about the batch, tried in this order until one works.

as it is: the graph runs at any batch already, whatever the file declares.
freed: the constants that hold the file's batch are rewritten.
fixed: the batch stays the file's.
"""


class _OtherBatch(ModelError):
    """The graph cannot be made to run at any batch size in this way."""


@dataclass(frozen=True)
class _Plan:
    """The arguments of `prepare`, with the model normalized."""

    proto: onnx.ModelProto
    wrt: str | None
    of: str | None
    preprocessing: Preprocessing | None
    size: tuple[int, int] | None
    weights: tuple[str, ...] = ()

    def folded(self) -> tuple[ir.Model, ir.Value, ir.Value, list[Any]]:
        """Return a new folded model, its image, its logits, and the image's declared sizes."""
        model, wanted = ir.from_proto(self.proto), self.preprocessing
        graph = model.graph
        image = _image_input(graph, self.wrt)
        open_weights(graph, self.weights)
        logits = choose_output(graph, self.of, inner=wanted is not None)
        place = 0 if wanted else graph.outputs.index(logits)
        if wanted is not None:
            graph.outputs[:] = [logits]
        dims = _image_shape(image, wanted.layout if wanted else _layout(image), self.size)
        if dims:  # the image's size decides how often loops and sequences are unrolled
            image.shape = ir.Shape([dims[0] or BATCH, *dims[1:]])
        fold(model)
        return model, image, graph.outputs[place], dims


def _prepared(plan: _Plan, way: _Way) -> Classifier:
    model, image, logits, dims = plan.folded()
    image_name, output = image.name or "", logits.name or ""
    fixed = (int(dims[0] or 1), *dims[1:]) if dims else ()
    shape: Shape = fixed if way == "fixed" else (BATCH, *dims[1:])
    if way == "freed":
        _free(model, image_name, fixed, plan.preprocessing is not None)
    try:
        info = settle(model, image_name, shape)
    except ModelError as error:
        if way == "fixed":
            raise
        raise _OtherBatch(str(error)) from None
    settle_pools(model, {name: known.shape for name, known in info.items()})
    _require_batch(plan, way, dims, info.get(output))
    head, plain = Head(), logits
    if plan.preprocessing is not None:
        logits, head = as_logits(model, logits, plan.preprocessing.outputs, info)
    _require_apart(plan, dims, find_mixing(list(model.graph), image, logits, info))
    if way != "fixed" and (way == "freed" or (dims and dims[0])):
        original, old_image, old_logits, _ = plan.folded()
        if head.inner is not None:  # a saturated head would hide a difference
            old_logits = choose_output(original.graph, head.inner, inner=True)
            plain = choose_output(model.graph, head.inner, inner=True)
        alone = _one_output(original, old_image, old_logits, fixed)
        if not works_alike(alone, _one_output(model, image, plain, shape), image_name, fixed):
            raise _OtherBatch("the logits change with the batch size")
    drop_unused(model)
    refuse_random(list(model.graph), model.graph.outputs)
    for value in (v for node in model.graph for v in node.outputs):
        if (known := info.get(value.name or "")) is not None:
            value.dtype = known.dtype
    require_shapes(list(model.graph), image, logits, info)
    if plan.preprocessing is not None:
        logits = flatten_logits(model, logits, info, shape[0])
    return Classifier(
        nodes=list(model.graph),
        image=image,
        logits=logits,
        outputs=list(model.graph.outputs),
        info=info,
        opsets=dict(model.opset_imports),
        weights=[v for v in model.graph.inputs if v is not image and v.uses()],
        head=head,
    )


def _free(model: ir.Model, image: str, fixed: Shape, classifier: bool) -> None:
    if not classifier and len(fixed) != 4:
        raise _OtherBatch("only a batch of images is freed")
    if not free_batch(model, image, fixed):
        raise _OtherBatch("nothing in the graph holds the batch")


def _require_batch(plan: _Plan, way: _Way, dims: list[Any], output: Info | None) -> None:
    """Refuse logits without a batch axis. Other outputs pass if the file leaves the batch open."""
    if way == "fixed" or (output is not None and output.shape[:1] == (BATCH,)):
        return
    if plan.preprocessing is not None or way == "freed" or not dims or dims[0]:
        raise _OtherBatch("the output does not follow the batch")


def _require_apart(plan: _Plan, dims: list[Any], mixing: str | None) -> None:
    """Refuse a graph that mixes the images of a batch, unless the file's batch is one image."""
    if mixing is None or plan.preprocessing is None:
        return
    raise _OtherBatch(mixing) if dims and dims[0] == 1 else UnsupportedOperator(mixing)


def _one_output(model: ir.Model, image: ir.Value, logits: ir.Value, shape: Shape) -> Any:
    """Return the model as a ModelProto with an image of this shape and the logits as output."""
    proto = ir.to_proto(model)
    for value in proto.graph.input:
        if value.name == image.name:
            kind = int(image.dtype or ir.DataType.FLOAT)
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, shape))
    del proto.graph.output[:], proto.graph.value_info[:]
    proto.graph.output.add().name = logits.name or ""
    return onnx.shape_inference.infer_shapes(proto)


def _at_opset(proto: onnx.ModelProto, wanted: int) -> onnx.ModelProto:
    opset = {entry.domain: entry.version for entry in proto.opset_import}.get("")
    if opset is None:
        raise ModelError("the model imports no ai.onnx opset; export it again")
    if opset > _NEWEST:
        raise ModelError(
            f"the model's opset is {opset}, and this version supports at most {_NEWEST}; export "
            "the model at an older opset, or update jataug"
        )
    if opset >= wanted:
        return proto
    return convert(proto, opset, wanted)


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
        raise ModelError(f"the model does not have one input {wanted}; its inputs are: {named}")
    if others := [v.name for v in graph.inputs if v is not inputs[0]]:
        raise ModelError(
            f"the model needs more than an image: inputs {', '.join(map(str, others))}"
        )
    return inputs[0]


def _layout(image: ir.Value) -> str:
    """Return the layout of an image of which only the number of channels is known."""
    sizes = [d if isinstance(d, int) and d > 0 else None for d in image.shape or ()]
    return "nhwc" if len(sizes) == 4 and sizes[1] is None and sizes[3] is not None else "nchw"


def _image_shape(image: ir.Value, layout: str, size: tuple[int, int] | None) -> list[Any]:
    if image.shape is None:
        raise ModelError(
            f"input {image.name!r} has no declared shape; declare it in the file, such as "
            "(N, 3, 224, 224) with a symbolic batch"
        )
    dims = [d if isinstance(d, int) and d > 0 else None for d in image.shape]
    if len(dims) == 4 and size is not None:
        rows, columns = (2, 3) if layout == "nchw" else (1, 2)
        for axis, wanted in ((rows, size[0]), (columns, size[1])):
            if dims[axis] not in (None, wanted):
                shape = ", ".join("N" if d is None else str(d) for d in dims)
                raise ModelError(
                    f"--size {size[0]},{size[1]}: the model's input is fixed at ({shape}); leave "
                    "--size out"
                )
            dims[axis] = wanted
    if math.prod(d or 1 for d in dims) > _LARGEST:
        raise ModelError(
            f"input {image.name!r} has the shape {image.shape}, which is too large; at most "
            f"{_LARGEST} numbers are supported"
        )
    if any(d is None for d in dims[1:]):
        raise ModelError(
            f"input {image.name!r} has shape {image.shape}: channels, height and width must be "
            "known; give height and width with --size HEIGHT,WIDTH"
        )
    return dims


def image_shape(network: Classifier, preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Return (channel, height, width) of the images a network takes.

    Raises:
        ModelError: the input is not a batch of images with 1 or 3 channels.
    """
    if len(network.image_shape) != 4:
        raise ModelError(
            f"the image input has the shape {network.image_shape}, which is not a batch of images; "
            "4 axes are needed"
        )
    _, *sizes = (int(d) if isinstance(d, int) else 0 for d in network.image_shape)
    if preprocessing.layout == "nhwc":
        sizes = [sizes[2], sizes[0], sizes[1]]
    if sizes[0] not in (1, 3):
        raise ModelError(
            f"the image input has the shape {network.image_shape}: {sizes[0]} channels in the "
            f"layout {preprocessing.layout}, where 1 or 3 are supported; choose the layout with "
            "--layout nchw|nhwc"
        )
    return sizes[0], sizes[1], sizes[2]
