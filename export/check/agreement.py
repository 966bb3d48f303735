"""A prepared network beside the model as it came: do both give the same logits?

Preparing folds constants, frees the batch and converts opsets; a fault in any of it would attack
another model than the one that was given. So both are run, on the same runtime, before anything is
written.

A quantised model has a second difference. A runtime fuses the quantisers and what lies between them
into one operator where nothing else reads the values between. A gradient does read them. The fused
operator then gives way to its parts, whose rounding may fall on the other side here and there.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from jataug.errors import CheckError
from jataug.preprocessing import Preprocessing
from jataug.runtime.onnxruntime import Engine

from ..gradient.differentiate import Trace, trace
from ..gradient.split_vjp import outer_shape
from ..graph.builder import Graph, as_model
from ..graph.term import Term
from ..model.classifier import Classifier
from ..model.element_types.precision import Precision, float32_twin
from ..model.element_types.widen import widen
from ..model.files import normalized
from ..model.head import Head
from ..model.weights import weight_inputs
from ..preprocess import into_network
from .gradient import gradient_graph, probe_images

__all__ = ["check_logits", "check_prepared", "logits_difference", "span_difference"]

Array = NDArray[Any]

TOLERANCE = 1e-3
"""Largest difference of the logits, relative to their span; of `free_batch`, too. Folding batch
normalisation and constants only changes the order of roundings: 32 layers of convolution and
normalisation differed by 4e-7 at most, six vision transformers by 8e-8. Above it is no rounding.
"""

QUANTISED = 0.05
"""The same for quantised models, where a rounding that falls on the other side moves a whole step;
the largest that was measured is 2.8% (docs/quantised.md).
"""

_BATCHES = (4, 3)
"""Batch sizes; of the second one image is left over, which makes a batch of 1."""


def check_logits(
    proto: onnx.ModelProto,
    network: Classifier,
    preprocessing: Preprocessing | None,
    device: str = "cpu",
    weights: Mapping[str, Array] | None = None,
    of: str | None = None,
) -> str | None:
    """Refuse a prepared network whose logits are not those of the model as it came.

    Args:
        proto: the model as it came.
        network: the same, prepared.
        preprocessing: between an image in [0, 1] and the network; None takes any input and output.
        device: where.
        weights: by input name, of a network that has them as inputs.
        of: the output, where there is no preprocessing; default the only one.

    Returns:
        None, or why they could not be compared.

    Raises:
        CheckError: they differ by more than TOLERANCE; the message names the first node that does.
    """
    limit = QUANTISED if network.straight_through else TOLERANCE
    pairs = {}
    try:
        reference = _reference(proto, network, preprocessing, of)
        alone = Engine(reference, {}, device)
        prepared = Engine(_forward(network, preprocessing), {}, device)
        images = _images(network, preprocessing)
        for size in _sizes(network):
            inside, found = _run(prepared, images, size, weights or {})
            pairs[size] = found, _run_alone(alone, reference, inside, size, network.head)
    except Exception as error:  # of the runtime: each kind of failure has a class of its own
        return " ".join(str(error).split())
    for size, (found, expected) in pairs.items():
        difference = span_difference(found, expected)
        if not difference <= limit:
            first = _first_difference(reference, network, preprocessing, device, limit, weights)
            raise CheckError(
                f"self-check: the prepared network's output differs from the model's by "
                f"{difference:.2%} of its span at batch size {size}, expected at most "
                f"{limit:.1%}{first}; nothing was written (--no-check skips this)"
            )
    return None


def check_prepared(
    proto: onnx.ModelProto,
    network: Classifier,
    precision: Precision | None,
    options: Mapping[str, Any],
    device: str = "cpu",
) -> str | None:
    """Compare as `check_logits` does a network that `prepare_in` made with these options; of a
    network of 16 bits the same in float32.
    """
    twin = float32_twin(network, proto, **options)
    plain = proto if precision is None and twin is None else widen(proto)
    return check_logits(plain, twin or network, None, device, of=options.get("of"))


def logits_difference(
    proto: onnx.ModelProto,
    network: Classifier,
    preprocessing: Preprocessing,
    device: str = "cpu",
) -> float:
    """Return the largest difference between the logits beside the gradient and those of the model
    alone, relative to the span of the latter; both on random images, in sessions of equal options.

    Args:
        proto: the model as it came.
        network: the same, prepared.
        preprocessing: between an image in [0, 1] and the network.
        device: where.
    """
    images, size = _images(network, preprocessing), _sizes(network)[0]
    inside, _ = _run(Engine(_forward(network, preprocessing), {}, device), images, size, {})
    beside = Engine(gradient_graph(network, preprocessing), {}, device)
    cotangent = np.ones((size, int(network.logits_shape[1])), np.float32)
    parts = _parts(images, size)
    found = [beside.run({"image": p, "cotangent": cotangent[: len(p)]})["logits"] for p in parts]
    reference = _reference(proto, network, preprocessing)
    alone = Engine(reference, {}, device)
    expected = _run_alone(alone, reference, inside, size, network.head)
    return span_difference(_flat(found), expected)


def span_difference(found: Array, expected: Array) -> float:
    """Return the largest difference, relative to the span of what was expected; infinite where one
    is finite and the other is not.
    """
    a, b = (np.asarray(array, np.float64) for array in (found, expected))
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite):
        return float("inf")
    if not finite.any():
        return 0.0
    a, b = a[finite], b[finite]
    span = max(float(np.ptp(b)), 1e-6 * float(np.abs(b).max()), 1e-12)
    return float(np.abs(a - b).max()) / span


def _images(network: Classifier, preprocessing: Preprocessing | None) -> Array:
    """Return images in [0, 1] with structure, noise, and an edge of black and white."""
    count, shape = max(_sizes(network)), [int(d) for d in outer_shape(network, preprocessing)[1:]]
    generator = np.random.Generator(np.random.Philox(key=5))
    images = generator.random((count, *shape))
    if len(shape) == 3:
        structured = -(-count // 2)
        images[:structured] = probe_images(structured, (shape[0], shape[1], shape[2]))
    images[-1] = images[-1] > 0.5
    return images.astype(np.float32)


def _sizes(network: Classifier) -> tuple[int, ...]:
    batch = network.image_shape[0] if network.image_shape else 1
    return (batch,) if isinstance(batch, int) else _BATCHES


def _forward(
    network: Classifier, preprocessing: Preprocessing | None, inner: Mapping[str, ir.Value] = {}
) -> onnx.ModelProto:
    """Return "image" -> "inside", what the network reads, "logits", and inner values by name."""
    graph = Graph(reserved=("inside", "logits", *inner))
    image = graph.input("image", np.float32, outer_shape(network, preprocessing))
    opened = weight_inputs(graph, network)
    inside = into_network(image, preprocessing or Preprocessing(), network)
    instance = trace(graph, network, inside)
    logits = _before_head(network, instance) or instance.logits
    outputs = {"inside": inside, "logits": logits.cast(np.float32)}
    outputs |= {name: instance.terms[value] for name, value in inner.items()}
    finished = graph.finish([image, *opened], outputs, "forward", opsets=network.opsets)
    return as_model(finished)


def _before_head(network: Classifier, instance: Trace) -> Term | None:
    """Return the value before the head that was taken off, or None where none was."""
    for value in (v for node in network.nodes for v in node.outputs):
        if value.name and value.name == network.head.inner:
            return instance.terms[value]
    return None


def _reference(
    proto: onnx.ModelProto,
    network: Classifier,
    preprocessing: Preprocessing | None,
    of: str | None = None,
) -> onnx.ModelProto:
    """Return the model with one output, the value that `_forward` gives of the prepared network,
    and nothing else changed.
    """
    name = of if preprocessing is None else network.head.inner or preprocessing.logits
    source = proto if network.head.inner is None else normalized(proto)
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    name = name or proto.graph.output[0].name
    declared = [value for value in copy.graph.output if value.name == name]
    del copy.graph.output[:]
    copy.graph.output.append(declared[0] if declared else onnx.ValueInfoProto(name=name))
    return copy


def _parts(images: Array, size: int) -> Iterator[Array]:
    return (images[k : k + size] for k in range(0, len(images), size))


def _run(
    engine: Engine, images: Array, size: int, weights: Mapping[str, Array]
) -> tuple[Array, Array]:
    runs = [engine.run({"image": part, **weights}) for part in _parts(images, size)]
    return np.concatenate([run["inside"] for run in runs]), _flat(run["logits"] for run in runs)


def _run_alone(
    engine: Engine, model: onnx.ModelProto, inside: Array, size: int, head: Head
) -> Array:
    """Run the model as it came, at the batch that it holds if it holds one. Where the logits are
    the logarithm of its output, that logarithm is returned.
    """
    (name,) = engine.inputs
    value = next(v for v in model.graph.input if v.name == name)
    dims = value.type.tensor_type.shape.dim
    own = dims[0].dim_value if dims else len(inside)
    found = []
    for part in _parts(inside, own or size):
        missing = max(own - len(part), 0)
        padded = np.concatenate([part, np.repeat(part[-1:], missing, 0)])
        output = engine.run({name: padded})[engine.outputs[0]]
        found.append(output[: len(part)] if missing else output)
    values = _flat(found).astype(np.float32)
    return values if head.least is None else np.log(np.maximum(values, head.least))


def _flat(outputs: Iterable[Array]) -> Array:
    """Join the outputs of several runs; of a general graph they have no row per image."""
    return np.concatenate([output.reshape(-1) for output in outputs])


def _first_difference(
    reference: onnx.ModelProto,
    network: Classifier,
    preprocessing: Preprocessing | None,
    device: str,
    limit: float,
    weights: Mapping[str, Array] | None,
) -> str:
    """Return which node is the first to differ, or "" where names do not tell."""
    makers = {name: node for node in reference.graph.node for name in node.output}
    floats = {
        name: value
        for node in network.nodes
        for value in (*node.inputs, *node.outputs)
        if value is not None
        and value is not network.image
        and (name := value.name or "") in makers
        and value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
    }
    computed = {name: v for name, v in floats.items() if v.const_value is None}
    copy = onnx.ModelProto()
    copy.CopyFrom(reference)
    there = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=n) for n in floats if n not in there)
    try:
        size = _sizes(network)[0]
        images = _images(network, preprocessing)[:size]
        found = Engine(_forward(network, preprocessing, computed), {}, device).run(
            {"image": images, **(weights or {})}
        )
        alone = Engine(copy, {}, device)
        expected = alone.run({alone.inputs[0]: found["inside"]})
    except Exception:  # a name is a help, not needed: what was found is said without it
        return ""
    for name, value in floats.items():
        array = found[name] if value.const_value is None else value.const_value.numpy()
        if array.shape != expected[name].shape or span_difference(array, expected[name]) > limit:
            node = makers[name]
            return f"; the first to differ is {node.op_type} (node {node.name or name!r})"
    return ""
