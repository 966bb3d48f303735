"""`differentiate`: a model's vector-Jacobian product, a report on it, and its check."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from jataug.artifact import prune
from jataug.errors import CheckError
from jataug.runtime.onnxruntime import Engine, version

from ..gradient.differentiate import vjp as gradient_of
from ..graph.builder import needed_nodes
from ..model.classifier import Classifier
from ..model.element_types.precision import Precision, float32_ends, prepare_in
from ..model.load import load_model
from ..model.reach import reached_from
from ..rules import FLAT
from .agreement import check_prepared
from .gradient import (
    check_alive,
    check_direction,
    directional_error,
    open_half,
    probe_images,
    require_small,
)

__all__ = ["Report", "check_vjp", "differentiate", "report"]


def differentiate(
    model: str | Path | onnx.ModelProto,
    wrt: str | None = None,
    of: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    precision: Precision | None = None,
    check: bool = True,
) -> onnx.ModelProto:
    """Return the model's vector-Jacobian product as a model.

    It has the model's input and outputs, an input "grad_<of>" (the cotangent, in the shape of `of`)
    and an output "grad_<wrt>": the gradient of sum(grad_<of> * of), in the shape of `wrt`.

    Args:
        model: an .onnx file or a ModelProto.
        wrt: the input to differentiate with respect to; default the only floating-point input.
        of: the output to differentiate; default the only one.
        size: (height, width) for a model that leaves them open.
        precision: "float32", "float16" or "bfloat16", the type in which the network and its
            gradient are computed; inputs and outputs have it too. Default: the model's own type.
        check: compare the output with the original model's, where ONNX Runtime is installed and
            can run both.

    Raises:
        CheckError: the outputs differ.
        ModelError: the file is missing, broken or ambiguous, or the output does not depend on the
            input.
        UnsupportedOperator: an op on the path has no derivative rule; the message names it.
    """
    proto = load_model(model)
    options = {"wrt": wrt, "of": of, "size": size}
    network = prepare_in(precision, proto, **options)
    result = gradient_of(network)
    if check:
        check_prepared(proto, network, precision, options)
    return result


@dataclass(frozen=True)
class Report:
    """Statistics of a gradient. Counts are by op, the most frequent first.

    Attributes:
        nodes: number of nodes of the folded model.
        rules: how often the rule of each op was used.
        flat: how often the gradient ended at each op whose derivative is zero.
        straight_through: how often the gradient of each quantised op is an estimate.
        opset: the ai.onnx version of the gradient graph.
    """

    nodes: int
    rules: dict[str, int]
    flat: dict[str, int]
    opset: int
    straight_through: dict[str, int] = field(default_factory=dict)


def report(network: Classifier) -> Report:
    """Return which ops a gradient passes and where it ends."""
    active = reached_from(network.image, network.nodes)
    rules: Counter[str] = Counter()
    flat: Counter[str] = Counter()
    for node in needed_nodes(network.nodes, [network.logits]):
        if any(value in active for value in node.outputs):
            rules[node.op_type] += 1
        elif (node.domain, node.op_type) in FLAT and any(v in active for v in node.inputs):
            flat[node.op_type] += 1
    estimates = Counter(node.op_type for node in network.straight_through)
    return Report(
        nodes=len(network.nodes),
        rules=dict(rules.most_common()),
        flat=dict(flat.most_common()),
        opset=network.opset,
        straight_through=dict(estimates.most_common()),
    )


def check_vjp(
    vjp: onnx.ModelProto,
    network: Classifier,
    device: str = "cpu",
    twin: Classifier | None = None,
) -> tuple[str, float]:
    """Compare a gradient graph of `differentiate` with finite differences on the runtime.

    For a quantised network, the gradient of its float twin is compared, and the network's own must
    reach the image. For a 16-bit network, the gradient of `twin`, the same network in float32, is
    compared, and the network's own must point in its direction.

    Returns:
        The runtime, and the relative error.

    Raises:
        CheckError: the gradient is off by more than TOLERANCE, or not finite.
    """
    if twin is not None:
        single = gradient_of(twin)
        found = check_vjp(single, twin, device)
        _check_half(vjp, single, network, device)
        return found
    image, output = network.image.name or "", network.logits.name or ""
    dtype = network.image.dtype
    kind = np.dtype(np.float32) if dtype is None else dtype.numpy()
    sizes = tuple(2 if isinstance(size, str) else size for size in network.image_shape)
    quantised = bool(network.straight_through)
    checked = gradient_of(network, rounded=False) if quantised else vjp
    engine = Engine(checked, {"N": 2}, device)
    forward = Engine(prune(checked, [output]), {"N": 2}, device)
    start = _start(sizes)
    logits = forward.run({image: start.astype(kind)})[output]
    generator = np.random.Generator(np.random.Philox(key=1))
    cotangent = generator.standard_normal(logits.shape).astype(logits.dtype)
    if quantised:
        feeds = {image: start.astype(kind), f"grad_{output}": cotangent}
        check_alive(Engine(vjp, {"N": 2}, device).run(feeds)[f"grad_{image}"])
    head = network.logits.producer()
    # Probabilities of a confident network hardly change with its input; their logarithms do.
    in_logarithms = head is not None and head.op_type == "Softmax"
    least = max(float(np.finfo(logits.dtype).tiny), 1e-30)

    def evaluate(x: np.ndarray) -> np.ndarray:
        found = forward.run({image: x.astype(kind)})[output].astype(np.float64)
        return np.log(found.clip(min=least)) if in_logarithms else found

    def pullback(x: np.ndarray) -> np.ndarray:
        seed = cotangent
        if in_logarithms:
            found = forward.run({image: x.astype(kind)})[output]
            seed = cotangent / found.clip(min=least)
        return engine.run({image: x.astype(kind), f"grad_{output}": seed})[f"grad_{image}"].astype(
            np.float64
        )

    if not (np.isfinite(logits).all() and np.isfinite(pullback(start)).all()):
        raise CheckError("self-check: the output or the gradient of a random input is not finite")
    error = directional_error(evaluate, pullback, start, cotangent)
    require_small(error, "input")
    return f"{version()} {engine.providers[0]}", error


def _check_half(
    vjp: onnx.ModelProto, single: onnx.ModelProto, network: Classifier, device: str
) -> None:
    image, seed = (value.name for value in vjp.graph.input)
    generator = np.random.Generator(np.random.Philox(key=1))
    shapes = (
        tuple(2 if isinstance(size, str) else size for size in shape)
        for shape in (network.image_shape, network.logits_shape)
    )
    start, cotangent = next(shapes), next(shapes)
    feeds = {
        image: _start(start).astype(np.float32),
        seed: generator.standard_normal(cotangent).astype(np.float32),
    }
    half = open_half(float32_ends(vjp), {"N": 2}, device)
    name = f"grad_{image}"
    check_direction(half.run(feeds)[name], Engine(single, {"N": 2}, device).run(feeds)[name])


def _start(sizes: tuple[int, ...]) -> np.ndarray:
    if len(sizes) == 4:
        return probe_images(sizes[0], (sizes[1], sizes[2], sizes[3]))
    return np.random.Generator(np.random.Philox(key=0)).uniform(0.2, 0.8, sizes)
