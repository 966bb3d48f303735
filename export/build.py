"""Export: builds the attack on a classifier, checks it, and writes the artifact."""

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import onnx
import onnx_ir as ir

import jataug
from jataug.artifact import Form, Manifest, sign
from jataug.budget import radius_of
from jataug.config import AttackConfig
from jataug.errors import BudgetError, ModelError
from jataug.preprocessing import Preprocessing

from .attack import forms
from .attack.body import Body
from .attack.warp import reach_of
from .check.agreement import check_logits, logits_difference
from .check.gradient import check_artifact, check_gradient
from .check.portable import check_portable
from .graph.builder import Graph, as_model
from .model.classifier import Classifier
from .model.element_types.precision import Precision, float32_twin, precision_of, prepare_in
from .model.element_types.widen import widen
from .model.load import image_shape, load_model, model_digest
from .model.validity import explain_invalid
from .model.weights import PREFIX, Weights, weight_arrays, weight_inputs, weight_names
from .passes.lowering import lower_masks
from .passes.rematerialize import order_by_depth, rematerialize
from .save import check_destination, save_model

if TYPE_CHECKING:
    import torch

__all__ = ["Target", "build_attack", "checked_attack", "export_attack"]

Target = Literal["cpu", "cuda", "portable"]
"""Where an artifact is to run; see `export_attack`."""

_LARGEST = 1_900_000_000
"""The most bytes of constants in an artifact. A protobuf message cannot exceed 2 GB."""

_LARGEST_ADJOINT = 16
"""The largest flow radius, pixels, where the graph needs the warp's adjoint with respect to the
image: that adjoint is a stencil of (2 R + 1) ** 2 terms.
"""


def export_attack(
    model: "str | Path | onnx.ModelProto | torch.nn.Module",
    config: AttackConfig,
    destination: str | Path,
    *,
    preprocessing: Preprocessing | None = None,
    form: Form = "step",
    max_flow: float | str | None = None,
    example: Any = None,
    size: tuple[int, int] | None = None,
    precision: Precision | None = None,
    check: bool = True,
    device: str = "cpu",
    weights: Weights = "constant",
    target: Target = "cpu",
) -> Manifest:
    """Write the joint attack on a classifier, with its gradient graph, as an ONNX file.

    Args:
        model: an .onnx file, a ModelProto, or a torch module (then with `example`).
        config: what the attack does; its radii and steps are defaults that a session may change.
        destination: the artifact's path. The file is written atomically. Above 1 GB the weights go
            to "<name>.data" beside it, which is replaced first; see `save_model`.
        preprocessing: maps an image in [0, 1] to the network's input, and names its logits.
        form: "step" (one iteration per call), "loop" or "unrolled" (the whole attack per call).
        max_flow: pixels; the largest flow radius that the file serves. Default: the config's.
        example: for a torch module, an input of the right shape (batch, channel, height, width).
        size: (height, width) for a model that leaves them open.
        precision: "float32", "float16" or "bfloat16", the type in which the network and its
            gradient are computed. All else is float32. Default: the model's own type.
        check: before writing, compare the gradient with finite differences and the logits with
            those of the original model, on the runtime.
        device: where the check runs: "cpu", "cuda" or "cuda:<i>".
        weights: "input" leaves a torch module's weights out of the file. Each becomes an input of
            the graph, "weights/<name>", and nothing is folded. Such a file is for `jataug.trainer`,
            which binds the inputs to the module's own tensors.
        target: where the file is to run. "cpu" writes activation masks as the nodes that were
            fastest on the CPU; the file still runs everywhere. "cuda" and "portable" keep the masks
            of the derivative rules. "portable" also refuses operators that a runtime of
            docs/runtimes.md lacks.

    Returns:
        The manifest.

    Raises:
        ModelError: the model is not a classifier that can be attacked.
        UnsupportedOperator: an op has no derivative rule; the message names it.
        BudgetError: the options contradict each other.
        CheckError: the gradient is wrong, images of a batch influence each other, or the logits
            differ from the original model's. Nothing is written.
        ArtifactError: the destination cannot be written.
    """
    if target not in get_args(Target):
        raise BudgetError(f"target: expected one of {', '.join(get_args(Target))}, got {target!r}")
    destination = Path(destination)
    check_destination(destination, model)
    artifact, manifest = checked_attack(
        model, config, preprocessing, form=form, max_flow=max_flow, example=example, size=size,
        precision=precision, check=check, device=device, weights=weights, target=target,
    )  # fmt: skip
    save_model(artifact, destination)
    return manifest


def checked_attack(
    model: "str | Path | onnx.ModelProto | torch.nn.Module",
    config: AttackConfig,
    preprocessing: Preprocessing | None = None,
    *,
    form: Form = "step",
    max_flow: float | str | None = None,
    example: Any = None,
    size: tuple[int, int] | None = None,
    precision: Precision | None = None,
    check: bool = True,
    device: str = "cpu",
    weights: Weights = "constant",
    target: Target = "cpu",
) -> tuple[onnx.ModelProto, Manifest]:
    """Return the checked artifact as a model, and its manifest.

    Arguments and errors are those of `export_attack`, which writes the model to a file.
    """
    names = weight_names(model) if weights == "input" else []  # type: ignore[arg-type]  # refused there
    feeds = weight_arrays(model) if weights == "input" else {}  # type: ignore[arg-type]  # a module
    proto = load_model(model, example, optimize=weights == "constant")
    preprocessing = preprocessing or Preprocessing()
    options = {"of": preprocessing.logits, "preprocessing": preprocessing, "size": size}
    with explain_invalid(proto):
        network = prepare_in(precision, proto, **options, weights=names)
        artifact, manifest = build_attack(
            network, config, preprocessing, form, max_flow, model_digest(proto), target
        )
        if target == "portable":
            check_portable(artifact)
        if check:
            twin = float32_twin(network, proto, **options)
            runtime = check_gradient(network, preprocessing, device, feeds, twin)
            check_artifact(artifact, manifest, device, feeds)
            plain = proto if precision is None and twin is None else widen(proto)
            if unknown := check_logits(plain, twin or network, preprocessing, device, feeds):
                runtime = f"{runtime}; its logits were not compared with the model's: {unknown}"
            difference = None
            if manifest.straight_through:
                plain = widen(proto) if precision == "float32" else proto
                difference = logits_difference(plain, network, preprocessing, device)
            found = {"checked": runtime, "logits_difference": difference}
            manifest = Manifest(**{**vars(manifest), **found})
            sign(artifact, manifest)
    return artifact, manifest


def build_attack(
    network: Classifier,
    config: AttackConfig,
    preprocessing: Preprocessing,
    form: Form = "step",
    max_flow: float | str | None = None,
    digest: str = "",
    target: Target = "cpu",
) -> tuple[onnx.ModelProto, Manifest]:
    """Return the signed artifact as a model, and its manifest. Nothing is run to check it."""
    largest = config.flow.radius if max_flow is None else radius_of(max_flow, "max_flow")
    _check_options(config, form, largest)
    shape = image_shape(network, preprocessing)
    preprocessing.check_channels(shape[0])
    _check_flow(config, largest, shape)
    batch = network.image_shape[0]
    manifest = Manifest(
        form=form,
        iterations=1 if form == "step" else config.steps,
        config=config,
        max_flow_radius=largest,
        reach=reach_of(largest),
        batch=batch,
        image_shape=shape,
        classes=int(network.logits_shape[1]),
        preprocessing=preprocessing.determined(),
        model_sha256=digest,
        versions=_versions(),
        weights=tuple(f"{PREFIX}{value.name}" for value in network.weights),
        precision=precision_of(network),
        straight_through=tuple(f"{node.op_type} {node.name}" for node in network.straight_through),
    )
    graph = Graph(reserved=forms.OUTPUTS)
    named = [name for name in manifest.inputs if name not in manifest.weights]
    inputs = {name: graph.input(name, *_signature(name, manifest)) for name in named}
    opened = weight_inputs(graph, network)

    def body() -> Body:
        return Body(network, config, preprocessing, manifest.reach, largest)

    outputs = forms.build(form, body, graph, inputs, config)
    _check_weights(graph)
    finished = graph.finish(
        [*inputs.values(), *opened], outputs, "jataug_attack", opsets=network.opsets
    )
    if target == "cpu":
        lower_masks(finished, network)
        rematerialize(finished)
        order_by_depth(finished)
    model = as_model(finished)
    model.producer_version = jataug.__version__
    if network.head.taken_off:
        (logits,) = (value for value in model.graph.output if value.name == "logits")
        logits.doc_string = f"before {', '.join(network.head.taken_off)} of the model"
    onnx.checker.check_model(model, full_check=True)
    sign(model, manifest)
    return model, manifest


def _check_options(config: AttackConfig, form: str, largest: float) -> None:
    if form not in get_args(Form):
        raise BudgetError(f"form: expected one of {', '.join(get_args(Form))}, got {form!r}")
    if not config.branches:
        raise BudgetError(
            "flow and pixel radius are both 0, so the attack would change nothing; set at least one"
        )
    if config.flow.radius > largest:
        raise BudgetError(
            f"max_flow is {largest:g}, less than the flow radius {config.flow.radius:g}; raise "
            "max_flow or lower the flow radius"
        )
    if form != "step" and config.steps < 1:
        raise BudgetError(
            f"form {form!r} needs at least one step, and the attack has {config.steps}; use the "
            "form step"
        )
    if form != "step" and config.redraw_targets:
        raise BudgetError(
            f"form {form!r} has one target input and cannot redraw targets; use the form step"
        )


def _check_flow(config: AttackConfig, largest: float, shape: tuple[int, int, int]) -> None:
    most = max(shape[1:])
    if config.composition == "pixel-spatial" and "pixel" in config.branches:
        most = min(most, _LARGEST_ADJOINT)
    if config.flow.radius and largest > most:
        raise BudgetError(
            f"flow radius: {largest:g} pixels are too many; images of {shape[1]} x {shape[2]} with "
            f"the composition {config.composition} allow at most {most}"
        )


def _check_weights(graph: Graph) -> None:
    size = sum(v.const_value.nbytes for v in graph.constants.values() if v.const_value is not None)
    if size > _LARGEST:
        raise ModelError(
            f"the weights and the gradient's kernels take {size / 1e9:.1f} GB, and an artifact "
            f"holds at most {_LARGEST / 1e9:.1f} GB; use a smaller model"
        )


def _signature(name: str, manifest: Manifest) -> tuple[Any, tuple[Any, ...]]:
    channel, height, width = manifest.image_shape
    batch = manifest.batch
    if name in ("label", "target"):
        return np.int64, (batch,)
    if name == "flow":
        return np.float32, (batch, 2, height, width)
    if name in ("image", "delta"):
        return np.float32, (batch, channel, height, width)
    return np.float32, ("R",)


def _versions() -> dict[str, str]:
    return {
        "jataug": jataug.__version__,
        "onnx": onnx.__version__,
        "onnx_ir": ir.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
