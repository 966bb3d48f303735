"""The head of a classifier: which value of a model holds the logits, and in what shape."""

import onnx_ir as ir

from jataug.errors import ModelError

from ..graph.builder import Shape
from ..graph.shapes import Info

__all__ = ["as_logits", "choose_output", "flatten_logits"]

_ORDER_KEEPING = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""What may stand between a softmax and the output."""


def choose_output(graph: ir.Graph, of: str | None, *, inner: bool) -> ir.Value:
    """Return the output to differentiate; with `inner`, a name may be any value's in the graph.

    Raises:
        ModelError: there is none of that name, or several to choose from.
    """
    if inner and of is not None:
        for value in (v for node in graph for v in node.outputs):
            if value.name == of:
                return value
    found = [v for v in graph.outputs if of is None or v.name == of]
    if len(found) == 1:
        return found[0]
    named = ", ".join(f"{v.name} {v.shape or ''}".strip() for v in graph.outputs)
    if of is not None:
        raise ModelError(f"the model has no output {of!r}; it has: {named}")
    choose = "name the logits with --logits" if inner else "name one with --of"
    raise ModelError(f"the model has {len(graph.outputs)} outputs: {named}; {choose}")


def as_logits(model: ir.Model, output: ir.Value, outputs: str) -> ir.Value:
    """Return the logits of a model whose output is `outputs`, and make them its only output.

    Of probabilities these are the values before the softmax or sigmoid, or where none is found
    their logarithm.
    """
    graph = model.graph
    graph.outputs[:] = [output]
    if outputs == "logits":
        return output
    last = _normalizer(output)
    if last is not None and last.inputs[0] is not None:
        source = last.inputs[0]
        if last.outputs[0] is output:
            graph.outputs[:] = [source]
            return source
        last.outputs[0].replace_all_uses_with(source)
        return output
    kind = output.dtype or ir.DataType.FLOAT
    # float16 holds nothing below 6e-8.
    smallest = 1e-30 if kind != ir.DataType.FLOAT16 else 1e-7
    least = ir.Value(name="jataug_least", const_value=ir.tensor(smallest, dtype=kind))
    least.shape, least.dtype = ir.Shape([]), kind
    graph.register_initializer(least)
    positive = ir.node("Clip", [output, least])
    log = ir.node("Log", [positive.outputs[0]])
    positive.outputs[0].name, log.outputs[0].name = "jataug_positive", "jataug_log"
    graph.extend([positive, log])
    graph.outputs[:] = [log.outputs[0]]
    return log.outputs[0]


def _normalizer(output: ir.Value) -> ir.Node | None:
    """Return the softmax or sigmoid that makes the output, but for a change of shape."""
    node = output.producer()
    while node is not None and node.op_type in _ORDER_KEEPING and not node.domain:
        source = node.inputs[0]
        if source is None or len(source.uses()) != 1:
            return None
        node = source.producer()
    found = node is not None and node.op_type in ("Softmax", "Sigmoid") and not node.domain
    return node if found else None


def flatten_logits(
    model: ir.Model, logits: ir.Value, info: dict[str, Info], batch: int | str
) -> ir.Value:
    """Return logits of shape (batch, classes); axes of size 1 are dropped.

    Raises:
        ModelError: the output has another shape, or fewer than two classes.
    """
    known = info.get(logits.name or "")
    shape: Shape = () if known is None else known.shape
    classes = [size for size in shape[1:] if size != 1]
    if known is None or shape[:1] != (batch,) or len(classes) > 1 or "?" in shape:
        raise ModelError(
            f"output {logits.name!r} has shape {shape or 'unknown'}: expected logits of shape "
            "(batch, classes); name another output with --logits"
        )
    if not classes or not isinstance(classes[0], int):
        raise ModelError(f"output {logits.name!r} has shape {shape}: expected at least 2 classes")
    if len(shape) == 2:
        return logits
    node = ir.node("Flatten", [logits], {"axis": 1})
    flat = node.outputs[0]
    flat.name, flat.dtype = "jataug_logits", known.dtype
    info["jataug_logits"] = Info(known.dtype, (batch, classes[0]))
    model.graph.append(node)
    model.graph.outputs[:] = [flat]
    return flat
