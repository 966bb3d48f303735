"""Export checks: the gradient agrees with finite differences, and images of a batch do not mix."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from jataug.artifact import Manifest, prune
from jataug.errors import CheckError, ModelError
from jataug.preprocessing import Preprocessing
from jataug.runtime.onnxruntime import Engine, version

from ..gradient.differentiate import trace
from ..graph.builder import Graph, as_model
from ..model.classifier import Classifier
from ..model.weights import weight_inputs
from ..preprocess import into_network, out_of_network

__all__ = [
    "check_alive",
    "check_artifact",
    "check_direction",
    "check_gradient",
    "directional_error",
    "gradient_graph",
    "nchw",
    "open_half",
    "probe_images",
    "require_small",
]

Array = NDArray[Any]
Float64 = NDArray[np.float64]

TOLERANCE = 0.02
"""Largest relative difference between the gradient and finite differences, best of three step
sizes.
"""

ALIGNMENT = 0.5
"""The least cosine between a gradient in 16 bits and the same gradient in float32. The rules are
checked in float32. Rounding moves activations across the kinks of Relu and MaxPool, and each move
turns the gradient a little. EfficientNet-Lite0, a ResNet-18 and the demo model gave 0.984, 0.991
and 0.9995 in float16, and 0.883, 0.921 and 0.990 in bfloat16, rounded by casts
(benchmarks/precision.py). A gradient that overflows or vanishes is far below.
"""

_STEPS = (2.5e-5, 1e-4, 4e-4)
"""How far a finite difference moves the checked function, relative to the size of the logits."""

_LONG_STEPS = (1e-4, 4e-4, 1.6e-3)
"""The same, for steps along which the gradient is averaged."""

_DIRECTIONS = 5
"""The number of random directions. It is odd, so that their median is one of them."""

_POINTS = 12
"""The number of points over which the gradient is averaged along a step that crosses kinks."""

_MIXING = 1e-3
"""Largest relative change of one image's results when its neighbours change, where the graph itself
takes quantiser scales over the whole batch, or two equal runs differ. Elsewhere there is no change:
an entry is the same sum in the same order, whatever its neighbours hold.
"""


def check_gradient(
    network: Classifier,
    preprocessing: Preprocessing,
    device: str = "cpu",
    weights: Mapping[str, Array] | None = None,
    twin: Classifier | None = None,
) -> str:
    """Check the network's gradient on the runtime; return the runtime's name and version.

    For a quantised network, the float twin is checked, where a straight-through gradient is exact;
    the network's own gradient must not be zero everywhere. For a 16-bit network, whose rounding is
    larger than a finite difference, `twin` is checked, and both gradients must agree.

    Args:
        network: the network to check.
        preprocessing: maps an image in [0, 1] to the network's input.
        device: "cpu", "cuda" or "cuda:<i>".
        weights: the weights by input name, for a network that has them as inputs.
        twin: the same network in float32, for a 16-bit one.

    Raises:
        CheckError: the gradient is off by more than TOLERANCE, or images of a batch influence each
            other.
    """
    if twin is not None:
        runtime = check_gradient(twin, preprocessing, device)
        _check_half(network, twin, preprocessing, device)
        return runtime
    batch = network.image_shape[0]
    size = batch if isinstance(batch, int) else 3
    quantised = bool(network.straight_through)
    vjp = gradient_graph(network, preprocessing, rounded=not quantised)
    engine = Engine(vjp, {"N": size}, device)
    forward = Engine(prune(vjp, ["logits"]), {"N": size}, device)
    images = probe_images(size, nchw(network, preprocessing))
    generator = np.random.Generator(np.random.Philox(key=1))
    cotangent = generator.standard_normal((size, int(network.logits_shape[1]))).astype(np.float32)

    def run(x: Array) -> tuple[Float64, Float64]:
        image = x.astype(np.float32)
        found = engine.run({"image": image, "cotangent": cotangent, **(weights or {})})
        return found["logits"].astype(np.float64), found["gradient"].astype(np.float64)

    def evaluate(x: Array) -> Float64:
        found = forward.run({"image": x.astype(np.float32), **(weights or {})})
        return found["logits"].astype(np.float64)

    if quantised:
        own = Engine(gradient_graph(network, preprocessing), {"N": size}, device)
        feeds = {"image": images.astype(np.float32), "cotangent": cotangent, **(weights or {})}
        check_alive(own.run(feeds)["gradient"])
    if not np.isfinite(np.concatenate([part.ravel() for part in run(images)])).all():
        raise CheckError("self-check: the logits or the gradient of a random image are not finite")
    error = directional_error(evaluate, lambda x: run(x)[1], images, cotangent)
    require_small(error, "image", _advice(network))
    if size > 1:
        dynamic = any(node.op_type == "DynamicQuantizeLinear" for node in network.nodes)
        _check_mixing(run, images, exact=not dynamic)
    return f"{version()} {engine.providers[0]}"


def _check_half(
    network: Classifier, twin: Classifier, preprocessing: Preprocessing, device: str
) -> None:
    batch = network.image_shape[0]
    sizes = {"N": batch if isinstance(batch, int) else 3}
    half = open_half(gradient_graph(network, preprocessing), sizes, device)
    single = Engine(gradient_graph(twin, preprocessing), sizes, device)
    images = probe_images(sizes["N"], nchw(network, preprocessing)).astype(np.float32)
    generator = np.random.Generator(np.random.Philox(key=1))
    shape = (sizes["N"], int(network.logits_shape[1]))
    feeds = {"image": images, "cotangent": generator.standard_normal(shape).astype(np.float32)}
    check_direction(half.run(feeds)["gradient"], single.run(feeds)["gradient"])


def open_half(model: onnx.ModelProto, sizes: Mapping[str, int], device: str) -> Engine:
    """Return an engine of a 16-bit network.

    Raises:
        CheckError: the runtime lacks 16-bit kernels for it.
    """
    try:
        return Engine(model, sizes, device)
    except ModelError as error:
        raise CheckError(f"self-check: {error} (--no-check writes the file unchecked)") from error


def require_small(error: float, what: str, advice: str = "") -> None:
    """Refuse a `directional_error` above TOLERANCE.

    Args:
        error: as it was returned.
        what: what the gradient is of: a random image.
        advice: what to do, after the cause.

    Raises:
        CheckError: it is larger, or no number.
    """
    if error == math.inf:
        raise CheckError(
            f"self-check: the gradient of a random {what} is zero everywhere; nothing was written "
            f"(--no-check skips this){advice}"
        )
    if not error <= TOLERANCE:
        raise CheckError(
            f"self-check: the gradient differs from finite differences by {error:.1%}, expected "
            f"at most {TOLERANCE:.0%}; nothing was written (--no-check skips this){advice}"
        )


def check_direction(gradient: Array, reference: Array) -> None:
    """Check that a gradient in 16 bits points in the direction of the float32 gradient.

    Raises:
        CheckError: it is not finite, or their cosine is less than ALIGNMENT.
    """
    a, b = (array.astype(np.float64).ravel() for array in (gradient, reference))
    if not np.isfinite(a).all():
        raise CheckError(
            "self-check: the gradient of a random image is not finite in 16 bits; use --precision "
            "bfloat16, whose range is larger, or float32"
        )
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / length if length else 0.0
    if cosine < ALIGNMENT:
        raise CheckError(
            f"self-check: the gradient in 16 bits has a cosine of {cosine:.2f} with the float32 "
            f"gradient, and at least {ALIGNMENT} is required; use --precision float32 (--no-check "
            "skips this)"
        )


def _advice(network: Classifier) -> str:
    """Return what to try where the output saturates because the network is confident."""
    head = network.logits.producer()
    if head is None or head.op_type not in ("Sigmoid", "Softmax"):
        return ""
    return f"; the output is a {head.op_type}: attack its logits with --outputs probabilities"


def check_alive(gradient: Array) -> None:
    """Check that a straight-through gradient reaches the image.

    Raises:
        CheckError: it is zero everywhere, or not finite.
    """
    if not np.isfinite(gradient).all():
        raise CheckError("self-check: the gradient of a random image is not finite")
    if not gradient.any():
        raise CheckError(
            "self-check: the straight-through gradient is zero everywhere, because a quantiser "
            "saturates in every entry on random images; give the mean, std and scale that the "
            "model was calibrated with (--no-check skips this)"
        )


def gradient_graph(
    network: Classifier, preprocessing: Preprocessing, *, rounded: bool = True
) -> onnx.ModelProto:
    """Return the gradient graph with preprocessing: "image", "cotangent" -> "logits", "gradient".

    Args:
        network: the network to differentiate.
        preprocessing: maps an image in [0, 1] to the network's input.
        rounded: False takes the float twin of a quantised network.
    """
    graph = Graph(reserved=("logits", "gradient"))
    batch = network.image_shape[0]
    image = graph.input("image", np.float32, (batch, *nchw(network, preprocessing)))
    cotangent = graph.input("cotangent", np.float32, network.logits_shape)
    opened = weight_inputs(graph, network)
    inside = into_network(image, preprocessing, network)
    instance = trace(graph, network, inside, rounded=rounded)
    gradient = instance.pullback(cotangent.cast(instance.logits.dtype))
    outputs = {
        "logits": instance.logits.cast(np.float32),
        "gradient": out_of_network(gradient, preprocessing),
    }
    inputs = [image, cotangent, *opened]
    finished = graph.finish(inputs, outputs, "gradient", opsets=network.opsets)
    return as_model(finished)


def nchw(network: Classifier, preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Return (channel, height, width) of the images before preprocessing."""
    a, b, c = (int(size) for size in network.image_shape[1:])
    return (c, a, b) if preprocessing.layout == "nhwc" else (a, b, c)


def probe_images(count: int, shape: tuple[int, int, int]) -> Float64:
    """Return random images with structure at every scale, within [0.2, 0.8]: (count, *shape)."""
    generator = np.random.Generator(np.random.Philox(key=0))
    channel, height, width = shape
    total = np.zeros((count, *shape))
    cell = 1
    while cell <= max(height, width):
        coarse = generator.standard_normal((count, channel, -(-height // cell), -(-width // cell)))
        total += np.kron(coarse, np.ones((cell, cell)))[:, :, :height, :width]
        cell *= 4
    return 0.5 + 0.3 * np.tanh(total)


def directional_error(
    evaluate: Callable[[Array], Float64],
    pullback: Callable[[Array], Float64],
    images: Float64,
    cotangent: Array,
) -> float:
    """Return the relative error of a gradient against central differences.

    Args:
        evaluate: images -> logits, as float64.
        pullback: images -> the gradient of sum(cotangent * logits), as float64.
        images: (batch, ...).
        cotangent: in the shape of the logits.

    The gradient's own direction finds components that it should not have; random signs find
    components that it lacks. Each direction counts with the best of three step sizes, because large
    steps cross kinks and small ones drown in rounding. The random directions count with their
    median. An error above TOLERANCE may come from kinks. A difference is the mean of the slope
    along its step, so the gradient is then averaged along the step too.
    """
    gradient = pullback(images)
    length = float(np.linalg.norm(gradient))
    if length == 0:
        return float("inf")
    plain = evaluate(images)
    rows = len(images) if images.shape[:1] == plain.shape[:1] and images.ndim else 1
    logits = plain.reshape(rows, -1)
    seed = cotangent.reshape(logits.shape)
    size = max(float(np.linalg.norm(seed * (logits - logits.mean(axis=1, keepdims=True)))), 1e-6)

    def error(v: Float64, typical: float, points: int) -> float:
        expected = float((gradient * v).sum())
        scale = max(abs(expected), typical)
        errors = []
        for step in _STEPS if points == 1 else _LONG_STEPS:
            h = step * size / scale
            difference = evaluate(images + h * v) - evaluate(images - h * v)
            slope = float((cotangent * difference).sum()) / (2 * h)
            if points > 1:
                places = (2 * np.arange(points) + 1) / points - 1
                slopes = [float((pullback(images + h * t * v) * v).sum()) for t in places]
                expected = float(np.mean(slopes))
            errors.append(abs(slope - expected) / scale)
        return min(errors)

    generator = np.random.Generator(np.random.Philox(key=2))
    unit = 1 / np.sqrt(images.size)
    signs = [generator.choice([-unit, unit], images.shape) for _ in range(_DIRECTIONS)]

    def whole(points: int) -> float:
        among = float(np.median([error(v, length * unit, points) for v in signs]))
        return max(among, error(gradient / length, length, points))

    found = whole(1)
    return found if found <= TOLERANCE else min(found, whole(_POINTS))


def _check_mixing(
    run: Callable[[Array], tuple[Float64, Float64]], images: Float64, exact: bool
) -> None:
    """Check that the first, middle and last image give the same results beside other images."""
    alone, again = run(images), run(images)
    exact = exact and all(np.array_equal(a, b) for a, b in zip(alone, again, strict=True))
    limit = 0.0 if exact else _MIXING
    for i in {0, len(images) // 2, len(images) - 1}:
        others = (images > images.mean()).astype(np.float64)
        others[i] = images[i]
        for name, before, after in zip(("logits", "gradient"), alone, run(others), strict=True):
            scale = np.abs(before[i]).max() + 1e-12
            if not np.abs(before[i] - after[i]).max() <= limit * scale:
                raise CheckError(
                    f"self-check: an image's {name} change with the other images of its batch, as "
                    "batch normalisation in training mode does; export the model in eval mode"
                )


def check_artifact(
    model: onnx.ModelProto,
    manifest: Manifest,
    device: str = "cpu",
    weights: Mapping[str, Array] | None = None,
) -> None:
    """Run one call of the artifact from a zero start, and check its image.

    Raises:
        CheckError: the image is not finite or leaves [0, 1], or a step does not change it.
    """
    size = manifest.batch if isinstance(manifest.batch, int) else 2
    engine = Engine(model, {"N": size, "R": size}, device)
    channel, height, width = manifest.image_shape
    images = probe_images(size, manifest.image_shape).astype(np.float32)
    config = manifest.config
    flow_step, pixel_step = config.step_sizes(config.flow.radius, config.pixel.radius, 1)
    found = engine.run(
        {
            "image": images,
            "label": np.zeros(size, np.int64),
            "target": np.ones(size, np.int64),
            "flow": np.zeros((size, 2, height, width), np.float32),
            "delta": np.zeros((size, channel, height, width), np.float32),
            "flow_radius": np.full(size, config.flow.radius, np.float32),
            "pixel_radius": np.full(size, config.pixel.radius, np.float32),
            "flow_step": np.full(size, flow_step, np.float32),
            "pixel_step": np.full(size, pixel_step, np.float32),
            **(weights or {}),
        }
    )
    adversarial = found["adversarial"]
    inside = np.isfinite(adversarial) & (adversarial >= 0) & (adversarial <= 1)
    if not inside.all():
        raise CheckError("self-check: a call of the attack returned values outside [0, 1]")
    # A whole attack that keeps the best iterate may return its start, the clean image.
    if manifest.form == "step" and np.array_equal(adversarial, images):
        raise CheckError("self-check: one step of the attack leaves the image as it is")
