"""Reverse-mode differentiation of a classifier's graph. The rules are in jataug.export.rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from jataug.errors import ModelError, UnsupportedOperator

from ..graph.builder import Graph, as_model
from ..graph.quantised_values import dequantised, is_quantised
from ..graph.term import SOURCE, Builder, Shape, Term
from ..model.classifier import Classifier
from ..model.reach import reached_from, stopped_at
from ..passes.lowering import lower_masks
from ..passes.rematerialize import SIZES, order_by_depth, rematerialize
from ..rules import find_rule
from .float_twin import FloatTwin

__all__ = ["Trace", "trace", "vjp"]


@dataclass(frozen=True)
class Trace:
    """One instance of a network inside a graph under construction.

    Attributes:
        graph: the graph that holds the instance.
        nodes: the source nodes, in order.
        terms: source value -> term, for every value that has been computed.
        image: the source value of the image.
        logits: the term of the logits.
        opset: the source's ai.onnx version.
    """

    graph: Builder
    nodes: list[ir.Node]
    terms: dict[ir.Value, Term]
    image: ir.Value
    logits: Term
    opset: int | None

    def pullback(self, cotangent: Term) -> Term:
        """Add the gradient of sum(cotangent * logits) with respect to the image, and return it.

        The gradient has the image's shape and type.

        Raises:
            UnsupportedOperator: an op between the image and the logits has no rule.
            ModelError: the logits do not depend on the image, or their gradient is 0 everywhere.
        """
        active = reached_from(self.image, self.nodes)
        last = next(v for v, term in self.terms.items() if term is self.logits)
        if last not in active:
            raise ModelError(_unmoved(self, last))
        cotangents: dict[ir.Value, Term] = {last: cotangent}
        for node in reversed(self.nodes):
            gs = [cotangents.pop(y, None) for y in node.outputs]
            if all(g is None for g in gs):
                continue
            for i, x in enumerate(node.inputs):
                if x is None or x not in active:
                    continue
                found = find_rule(node, i, self.opset)
                ys = [self._read(node, y, active) for y in node.outputs if y in self.terms]
                if not found.every_output and any(g is not None for g in gs[1:]):
                    raise UnsupportedOperator(
                        f"{node.op_type} (node {node.name!r}): only its first output has a "
                        "derivative rule"
                    )
                inputs = [None if v is None else self._read(node, v, active) for v in node.inputs]
                whole = found.every_output
                g = found(gs if whole else gs[0], ys if whole else ys[0], node, inputs, i)
                g = unbroadcast(g, self.terms[x])
                cotangents[x] = cotangents[x] + g if x in cotangents else g
        return cotangents[self.image]

    def _read(self, node: ir.Node, value: ir.Value, active: set[ir.Value]) -> Term:
        """Return a value as the rules of a node read it.

        Rules of quantised ops read the term itself. Other rules read quantised numbers as float,
        and a constant that is stored quantised as a float constant.
        """
        term, maker = self.terms[value], value.producer()
        if is_quantised(node):
            return term
        if value in active and value.dtype is not None and not value.dtype.is_floating_point():
            return term.cast(np.float32)
        if maker is not None and maker.op_type == "DequantizeLinear" and is_quantised(maker):
            given = [*maker.inputs, None][:3]
            q, scale, zero = (None if v is None else self.terms.get(v) for v in given)
            if q and scale and q.const is not None and scale.const is not None:
                number = maker.attributes
                axis = number["axis"].as_int() if "axis" in number else 1
                block = number["block_size"].as_int() if "block_size" in number else 0
                return dequantised(q, scale, zero, axis, block)
        return term


def _unmoved(instance: Trace, logits: ir.Value) -> str:
    node = stopped_at(instance.image, logits, instance.nodes)
    if node is None:
        return f"the logits {logits.name!r} do not depend on the image"
    return (
        f"the gradient of {logits.name!r} is 0 everywhere: {node.op_type} (node {node.name!r}), "
        "which lies between the image and it, has a derivative of zero; attack the model without "
        "gradients (jataug evaluate does), or give the operator a straight-through derivative with "
        "jataug.export.rule"
    )


def trace(graph: Builder, network: Classifier, image: Term, *, rounded: bool = True) -> Trace:
    """Add an instance of `network` that reads `image` to `graph`, and return it.

    Instances in one graph share their weights.

    Args:
        graph: the graph that the nodes are added to.
        network: the network to copy.
        image: the term that the instance reads as its image.
        rounded: False writes the float twin of a quantised network.
    """
    terms = {network.image: image}
    twin = None if rounded else FloatTwin(graph)
    for node in network.nodes:
        for value in node.inputs:
            if value is not None and value not in terms:
                terms[value] = graph.adopt(value)
        inputs = [None if v is None else terms[v] for v in node.inputs]
        outputs = [_declared(graph, network, value) for value in node.outputs]
        rewritten = twin and twin.write(node, inputs, outputs)
        if not rewritten:
            _copy(graph, node, twin.adapt_inputs(inputs) if twin else inputs, outputs)
            if twin:
                twin.mark_floats(inputs, outputs)
        terms.update(zip(node.outputs, rewritten or outputs, strict=True))
    for value in network.outputs:
        if value not in terms:  # a weight
            terms[value] = graph.adopt(value)
    return Trace(graph, network.nodes, terms, network.image, terms[network.logits], network.opset)


def _declared(graph: Builder, network: Classifier, value: ir.Value) -> Term:
    """Return a new term with the type and shape of a value of the network."""
    info = network.info.get(value.name or "")
    dtype, shape = (None, None) if info is None else (info.dtype.numpy(), info.shape)
    fresh = ir.Value(name=graph.unique(value.name) if value.name else "")
    fresh.meta[SIZES] = shape
    fresh.meta[SOURCE] = value
    return Term(graph, fresh, dtype, shape)


def _copy(
    graph: Builder, node: ir.Node, inputs: Sequence[Term | None], outputs: Sequence[Term]
) -> None:
    graph.add(
        ir.Node(
            node.domain,
            node.op_type,
            [None if term is None else term.value for term in inputs],
            attributes=list(node.attributes.values()),
            outputs=[term.value for term in outputs],
            name=node.name,
        )
    )


def unbroadcast(g: Term, x: Term) -> Term:
    """Sum `g` over the axes along which `x` was broadcast."""
    if g.shape is None or x.shape is None or g.shape == x.shape:
        return g
    extra = len(g.shape) - len(x.shape)
    stretched = [
        extra + i for i, size in enumerate(x.shape) if size == 1 and g.shape[extra + i] != 1
    ]
    axes = [*range(extra), *stretched]
    return (g.sum(axes) if axes else g).reshape_like(x)


def vjp(network: Classifier, *, rounded: bool = True) -> onnx.ModelProto:
    """Return the vector-Jacobian product of a prepared network; see `differentiate`.

    Args:
        network: the network to differentiate.
        rounded: False differentiates the float twin of a quantised network instead.

    Raises:
        ModelError: the output does not depend on the input.
        UnsupportedOperator: an op on the path has no derivative rule; the message names it.
    """
    graph = Graph(reserved=(f"grad_{_name(network.image)}",))
    image = graph.input(_name(network.image), _dtype(network.image), network.image_shape)
    shape, name = network.logits_shape, f"grad_{_name(network.logits)}"
    cotangent = graph.input(name, _dtype(network.logits), shape)
    instance = trace(graph, network, image, rounded=rounded)
    gradient = instance.pullback(cotangent)
    _check_shape(gradient, network.image_shape)
    outputs = {_name(value): instance.terms[value] for value in network.outputs}
    outputs[f"grad_{_name(network.image)}"] = gradient
    finished = graph.finish([image, cotangent], outputs, "vjp", opsets=network.opsets)
    lower_masks(finished, network)
    rematerialize(finished)
    order_by_depth(finished)
    return as_model(finished)


def _check_shape(gradient: Term, shape: Shape) -> None:
    if gradient.shape is None:
        gradient.shape = shape
    if gradient.shape != shape:
        raise ModelError(f"the gradient has the shape {gradient.shape}, but the image has {shape}")


def _name(value: ir.Value) -> str:
    return value.name or ""


def _dtype(value: ir.Value) -> np.dtype[Any]:
    if value.dtype is None:
        raise ModelError(f"{value.name}: its type cannot be inferred; declare it in the model")
    return value.dtype.numpy()
