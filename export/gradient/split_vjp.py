"""The vector-Jacobian product of a network as two graphs, a forward and a backward one.

The forward graph also returns the values that the gradient needs, and the backward graph reads
them. This serves callers that know the cotangent only after the forward pass. `differentiate`
returns one graph, which would repeat the forward pass for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from jataug.errors import ModelError
from jataug.preprocessing import Preprocessing

from ..graph.builder import Graph, Term, as_model
from ..graph.term import SOURCE
from ..model.classifier import Classifier
from ..model.load import image_shape
from ..passes.lowering import lower_masks
from ..preprocess import into_network, out_of_network
from .differentiate import Trace, trace

__all__ = ["SplitVjp", "forward_graph", "outer_shape", "row_shapes", "split_vjp"]


@dataclass(frozen=True)
class SplitVjp:
    """The two graphs. Image, logits, cotangent and gradient are float32.

    Attributes:
        forward: "image" -> "logits" and `saved`.
        backward: "cotangent" (shape of the logits) and `saved` -> "gradient" (shape of the image).
        saved: names of the values that `forward` returns and `backward` reads, in the model's own
            types.
    """

    forward: onnx.ModelProto
    backward: onnx.ModelProto
    saved: list[str]


def outer_shape(network: Classifier, preprocessing: Preprocessing | None) -> tuple[int | str, ...]:
    """Return the input's shape: the network's own, or (batch, channel, height, width) of an image
    before its preprocessing.
    """
    if preprocessing is None:
        return network.image_shape
    return (network.image_shape[0], *image_shape(network, preprocessing))


def row_shapes(
    network: Classifier, preprocessing: Preprocessing | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of one image and of its row of the output.

    Raises:
        ModelError: the output does not have one row per image, or a size is symbolic.
    """
    image, output = outer_shape(network, preprocessing), network.logits_shape
    if output[:1] != image[:1]:
        raise ModelError(
            f"the output has the shape {output}, which is not one row for each image of the batch"
        )
    for shape in (image, output):
        if any(isinstance(size, str) for size in shape[1:]):
            raise ModelError(
                f"the shape {shape} has a symbolic size other than the batch; fix it in the model"
            )
    return tuple(map(int, image[1:])), tuple(map(int, output[1:]))


def forward_graph(
    network: Classifier, preprocessing: Preprocessing | None, saved: Sequence[ir.Value] = ()
) -> onnx.ModelProto:
    """Return the graph "image" -> "logits", with an output "saved_<i>" per value in `saved`."""
    graph = Graph()
    image = graph.input("image", np.float32, outer_shape(network, preprocessing))
    names = [graph.unique(name) for name in ("logits", *_names(saved))]
    inside = into_network(image, preprocessing or Preprocessing(), network)
    instance = trace(graph, network, inside)
    terms = [instance.logits.cast(np.float32), *(instance.terms[value] for value in saved)]
    outputs = dict(zip(names, terms, strict=True))
    finished = graph.finish([image], outputs, "forward", opsets=network.opsets)
    return as_model(finished)


def split_vjp(network: Classifier, preprocessing: Preprocessing | None) -> SplitVjp:
    """Return the network's vector-Jacobian product as a forward and a backward graph.

    Raises:
        UnsupportedOperator: an op on the path has no derivative rule; the message names it.
        ModelError: the output does not depend on the image, or a shape cannot be inferred.
    """
    graph = Graph()
    cotangent = graph.input("cotangent", np.float32, network.logits_shape)
    graph.unique("gradient")
    terms = _placeholders(graph, network)
    logits = terms[network.logits]
    instance = Trace(graph, network.nodes, terms, network.image, logits, network.opset)
    gradient = instance.pullback(cotangent.cast(logits.dtype))
    gradient = out_of_network(gradient, preprocessing or Preprocessing())
    gradient.shape = outer_shape(network, preprocessing)
    finished = graph.finish([cotangent], {"gradient": gradient}, "backward", opsets=network.opsets)
    lower_masks(finished, network)
    saved = _read_by(finished, terms)
    for value, name in zip(saved, _names(saved), strict=True):
        terms[value].value.name = name
        finished.inputs.append(terms[value].value)
    forward = forward_graph(network, preprocessing, saved)
    return SplitVjp(forward, as_model(finished), _names(saved))


def _names(saved: Sequence[ir.Value]) -> list[str]:
    return [f"saved_{i}" for i in range(len(saved))]


def _placeholders(graph: Graph, network: Classifier) -> dict[ir.Value, Term]:
    """Return a term for every value of the network: constants for weights, inputs for the rest."""
    terms: dict[ir.Value, Term] = {}
    computed = [network.image, *(y for node in network.nodes for y in node.outputs)]
    for i, value in enumerate(computed):
        if (info := network.info.get(value.name or "")) is not None:
            terms[value] = graph.input(f"saved_{i}", info.dtype.numpy(), info.shape)
        else:
            nameless = ir.Value(name=graph.unique(f"saved_{i}"))
            terms[value] = Term(graph, nameless, None, None)
        terms[value].value.meta[SOURCE] = value
    for value in (v for node in network.nodes for v in node.inputs if v is not None):
        if value not in terms:
            terms[value] = graph.adopt(value)
    return terms


def _read_by(graph: ir.Graph, terms: dict[ir.Value, Term]) -> list[ir.Value]:
    """Return the source values whose terms the finished graph reads but does not compute."""
    read = {v for node in ir.traversal.RecursiveGraphIterator(graph) for v in node.inputs}
    found = [value for value, term in terms.items() if term.value in read and term.const is None]
    for value in found:
        if terms[value].dtype is None:
            raise ModelError(f"the type or shape of {value.name!r} cannot be inferred")
    return found
