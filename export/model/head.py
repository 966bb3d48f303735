"""The head of a classifier: which value of a model holds the logits, and in what shape.

A head is what stands between the logits and the output and never swaps two classes of an image: a
Softmax, a Sigmoid, a temperature, chains of these. It leaves the prediction as it is and hides the
gradient where the model is sure of itself.

1. `choose_output`: the output that is asked for.
2. `as_logits`: its head is taken off, or the model is refused until somebody says what it is.
3. `flatten_logits`: axes of size 1 are dropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jataug.errors import ModelError
from jataug.preprocessing import Outputs

from ..graph.builder import Shape
from ..graph.shapes import Info, constant
from .folding.fold import register

__all__ = ["Head", "as_logits", "choose_output", "flatten_logits"]

_SHAPES = {"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}

_HIDING = {
    *("Atan", "Ceil", "Celu", "Clip", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "Relu"),
    *("Round", "Selu", "Sigmoid", "Sign", "Softmax", "Softplus", "Softsign", "Tanh"),
}
"""Never falling, and flat somewhere: there the gradient vanishes, and classes tie by rounding."""

_RISING = {"Asinh", "Atanh", "LeakyRelu", "Log", "LogSoftmax", "Sinh", "Sqrt"}
"""Rising everywhere, and nowhere as good as flat."""

_POSITIVE = {"Exp", "Sigmoid", "Softmax", "Softplus"}
_KEEPS_SIGN = {"Identity", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Sqrt"}

_TIELESS = {*_SHAPES, "LogSoftmax", "Softmax"}
"""One of these gives two classes the same number only where their logits are as good as equal; in
16 bits, or twice, also elsewhere.
"""


@dataclass(frozen=True)
class Head:
    """What a model has between its logits and its output.

    Attributes:
        taken_off: op and node of what was taken off, from the output inwards.
        hides: op and node of what still hides the gradient of the logits; None where nothing does.
        inner: the name of the value before all that was taken off; None where nothing was.
        least: the smallest probability whose logarithm is taken; None where none is taken.
    """

    taken_off: tuple[str, ...] = ()
    hides: str | None = None
    inner: str | None = None
    least: float | None = None


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
    if not named:
        raise ModelError("the model has no output; export it again")
    choose = "name the logits with --logits" if inner else "name one with --of"
    raise ModelError(f"the model has {len(graph.outputs)} outputs: {named}; {choose}")


def as_logits(
    model: ir.Model, output: ir.Value, outputs: Outputs | None, info: dict[str, Info]
) -> tuple[ir.Value, Head]:
    """Return the logits of a model whose output is `outputs`, and its head; the logits become its
    only output.

    Of probabilities these are the values before the head, whose largest is that of the output:
    where the head's rounding makes classes tie, the class that the output says is raised to the
    top. Where there is no head they are the logarithm of the output.

    Args:
        model: of one output; changed in place.
        output: that output.
        outputs: what it is said to hold; None where nothing was said.
        info: type and shape of every value; those of new values are added.

    Raises:
        ModelError: the output is a label; or it has a head that hides the gradient, and nothing
            was said of it; or not all of the head can be taken off.
    """
    _refuse_labels(output)
    chain = list(_steps(output, info))
    hiding = next((node for node, _ in chain if node.op_type in _HIDING), None)
    if outputs == "probabilities":
        chain = _until_log(chain)
    deepest = chain[-1][1] if chain else output
    behind = _hiding_behind(deepest, info)
    if outputs != "probabilities":
        found = hiding or behind
        if outputs is None and found is not None:
            raise ModelError(_ask(output, found, hiding is not None))
        return output, Head(hides=_named(found) if found else None)
    if behind is not None:
        raise ModelError(
            f"output {output.name!r}: {_named(behind)} hides the gradient and cannot be taken off, "
            "because it or what follows it is not the same for every class; attack the values "
            f"before it with --logits {_input_name(behind)}, or the output as it is with --outputs "
            "logits"
        )
    if not any(node.op_type in _HIDING | {"Log", "LogSoftmax"} for node, _ in chain):
        return _logarithm(model, output, info)
    nodes = [node for node, _ in chain]
    head = Head(taken_off=tuple(map(_named, nodes)), inner=deepest.name)
    tieless = {node.op_type for node in nodes} <= _TIELESS
    half = info[output.name or ""].dtype.itemsize < 4
    if not tieless or half or sum(node.op_type == "Softmax" for node in nodes) > 1:
        deepest = _with_ties(model, deepest, output, info)
    model.graph.outputs[:] = [deepest]
    return deepest, head


def _ask(output: ir.Value, node: ir.Node, whole: bool) -> str:
    held = f"is made by {_named(node)}" if whole else f"comes after {_named(node)}"
    if node.op_type == "Sigmoid":
        held += ", the head of models of several labels an image,"
    before = (
        "--outputs probabilities attacks the values before it, which have the same largest class"
        if whole
        else f"--logits {_input_name(node)} attacks the values before it"
    )
    return (
        f"output {output.name!r} {held} which hides the gradient where the model is sure; "
        f"{before}; --outputs logits insists on the output as it is"
    )


_PICKS = {"ArgMax": 0, "ArgMin": 0, "TopK": 1}
"""From which output on an operator gives places instead of values."""


def _refuse_labels(output: ir.Value) -> None:
    node = output.producer()
    while node is not None and node.op_type in {*_SHAPES, "Cast"} and node.inputs[0] is not None:
        output = node.inputs[0]
        node = output.producer()
    if node is not None and output in node.outputs[_PICKS.get(node.op_type, 2) :]:
        raise ModelError(
            f"output {output.name!r} is the class that {_named(node)} picks, and a class has no "
            f"gradient; attack the values it picks from: --logits {_input_name(node)}"
        )


def _named(node: ir.Node) -> str:
    return f"{node.op_type} (node {node.name!r})"


def _input_name(node: ir.Node) -> str:
    return (node.inputs[0].name if node.inputs[0] is not None else None) or "NAME"


def _steps(value: ir.Value, info: dict[str, Info]) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Yield the nodes of a value's head from the outside inwards, each with the value before it."""
    while (source := _before(value, info)) is not None:
        node = value.producer()
        assert node is not None
        yield node, source
        value = source


def _until_log(chain: list[tuple[ir.Node, ir.Value]]) -> list[tuple[ir.Node, ir.Value]]:
    """Leave a Log on where it is the innermost: it makes logits of what are probabilities."""
    for i in reversed(range(len(chain))):
        op = chain[i][0].op_type
        if op == "Log":
            return chain[:i]
        if op in _HIDING or op in _RISING:
            return chain
    return chain


def _before(value: ir.Value, info: dict[str, Info]) -> ir.Value | None:
    """Return the values whose order over the classes is that of `value`; None where there are none
    of that kind.
    """
    node, axis = value.producer(), _class_axis(value, info)
    if node is None or axis is None or not node.inputs or len(node.outputs) != 1:
        return None
    source, op = node.inputs[0], node.op_type
    if node.domain and op not in ("QuantizeLinear", "DequantizeLinear"):
        return None
    if op in ("Add", "Mul") and _class_axis(source, info) is None:
        source = node.inputs[1]
    before = _class_axis(source, info)
    if source is None or before is None or _classes(source, info) != _classes(value, info):
        return None
    others = [v for v in node.inputs[1:] if v is not None and v is not source]
    if source is not node.inputs[0]:
        others = [v for v in node.inputs[:1] if v is not None]
    return source if _keeps_order(node, source, others, before, info) else None


def _keeps_order(
    node: ir.Node, source: ir.Value, others: list[ir.Value], axis: int, info: dict[str, Info]
) -> bool:
    op, rank = node.op_type, len(info[source.name or ""].shape)
    if op in _SHAPES:
        order = node.attributes.get("perm")
        return op != "Transpose" or (order is not None and order.as_ints()[0] == 0)
    if op == "Cast":
        return info[node.outputs[0].name or ""].dtype.is_floating_point()
    if op in ("Softmax", "LogSoftmax", "LpNormalization"):
        along = node.attributes.get("axis")
        return (-1 if along is None else along.as_int()) % rank == axis
    if op == "Clip":
        return all(_is_same(v, source, axis, info) for v in others)
    if op in _HIDING or op in _RISING:
        given = (node.attributes.get(name) for name in ("alpha", "gamma"))
        return all(number is None or number.as_float() > 0 for number in given)
    if op in ("QuantizeLinear", "DequantizeLinear"):
        return _is_same(others[0], source, axis, info) and _is_positive(others[0])
    if op not in ("Add", "Sub", "Mul", "Div", "Pow") or len(others) != 1:
        return False
    if not _is_same(others[0], source, axis, info):
        return False
    if op in ("Add", "Sub"):
        return True
    return _is_positive(others[0]) and (op != "Pow" or _is_positive(source))


def _is_same(other: ir.Value, source: ir.Value, axis: int, info: dict[str, Info]) -> bool:
    """Tell whether an operand is the same finite number for every class of an image."""
    if (array := constant(other)) is not None:
        return array.size == 1 and bool(np.isfinite(array).all())
    known = info.get(other.name or "")
    if known is None:
        return False
    from_end = axis - len(info[source.name or ""].shape)
    return len(known.shape) < -from_end or known.shape[from_end] == 1


def _is_positive(value: ir.Value | None) -> bool:
    if value is None:
        return False
    if (array := constant(value)) is not None:
        return bool((array > 0).all())
    node = value.producer()
    if node is None or node.domain:
        return False
    if node.op_type in _POSITIVE:
        return True
    if node.op_type in ("Add", "Mul", "Div"):
        return all(map(_is_positive, node.inputs))
    if node.op_type in ("Clip", "Max"):
        least = node.inputs[1] if len(node.inputs) > 1 else None
        return least is not None and constant(least) is not None and _is_positive(least)
    return node.op_type in _KEEPS_SIGN and _is_positive(node.inputs[0])


def _class_axis(value: ir.Value | None, info: dict[str, Info]) -> int | None:
    """Return the only axis behind the batch that is longer than 1."""
    known = None if value is None else info.get(value.name or "")
    if known is None or not isinstance(_classes(value, info), int):
        return None
    return next(i for i, size in enumerate(known.shape) if i and size != 1)


def _classes(value: ir.Value | None, info: dict[str, Info]) -> int | str | None:
    known = None if value is None else info.get(value.name or "")
    sizes = [] if known is None else [size for size in known.shape[1:] if size != 1]
    return sizes[0] if len(sizes) == 1 else None


def _hiding_behind(value: ir.Value, info: dict[str, Info]) -> ir.Node | None:
    """Return what hides the gradient before a number per class, such as a scale or a bias."""
    while (node := value.producer()) is not None and _class_axis(value, info) is not None:
        if node.op_type in _HIDING and not node.domain:
            return node
        source = _before(value, info)
        if source is None and node.op_type in ("Add", "Sub", "Mul", "Div") and not node.domain:
            moved = [v for v in node.inputs if v is not None and constant(v) is None]
            source = moved[0] if len(moved) == 1 else None
        if source is None:
            return None
        value = source
    return None


def _logarithm(model: ir.Model, output: ir.Value, info: dict[str, Info]) -> tuple[ir.Value, Head]:
    kind, shape = (known := info[output.name or ""]).dtype, known.shape
    smallest = 1e-30 if kind != ir.DataType.FLOAT16 else 1e-7  # float16: nothing below 6e-8
    write = _Writer(model, info)
    least = write.constant("jataug_least", np.array(smallest, kind.numpy()))
    positive = write.node("Clip", "jataug_positive", shape, kind, output, least)
    model.graph.outputs[:] = [write.node("Log", "jataug_log", shape, kind, positive)]
    return model.graph.outputs[0], Head(least=smallest)


def _with_ties(
    model: ir.Model, logits: ir.Value, output: ir.Value, info: dict[str, Info]
) -> ir.Value:
    """Return the logits, the class that the output predicts raised to the top where the head ties
    it with others. What raises it is whole and without a gradient.
    """
    write = _Writer(model, info)
    known = info[logits.name or ""]
    kind, batch, classes = known.dtype, known.shape[0], _classes(logits, info)
    assert isinstance(classes, int)
    rows: Shape = (batch, classes)

    def flat(value: ir.Value, name: str) -> ir.Value:
        held = info[value.name or ""]
        if len(held.shape) == 2:
            return value
        return write.node("Flatten", name, rows, held.dtype, value, axis=1)

    logits, said = flat(logits, "jataug_rows"), flat(output, "jataug_said")
    winner = write.node(
        "ArgMax", "jataug_winner", (batch, 1), ir.DataType.INT64, said, axis=1, keepdims=1
    )
    numbers = write.constant("jataug_classes", np.arange(classes).reshape(1, -1))
    wins = write.node("Equal", "jataug_wins", rows, ir.DataType.BOOL, winner, numbers)
    hot = write.node("Cast", "jataug_hot", rows, kind, wins, to=int(kind))
    axes = write.constant("jataug_axes", np.array([1]))
    top = write.node("ReduceMax", "jataug_top", (batch, 1), kind, logits, axes, keepdims=1)
    gap = write.node("Sub", "jataug_gap", rows, kind, top, logits)
    whole = write.node("Floor", "jataug_whole", rows, kind, gap)
    more = write.node("Sign", "jataug_more", rows, kind, gap)
    rise = write.node("Add", "jataug_rise", rows, kind, whole, more)
    raised = write.node("Mul", "jataug_raised", rows, kind, rise, hot)
    return write.node("Add", "jataug_tied", rows, kind, logits, raised)


class _Writer:
    """Adds nodes whose types and shapes are known."""

    def __init__(self, model: ir.Model, info: dict[str, Info]) -> None:
        self._graph, self._info = model.graph, info

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        value = register(self._graph, name, array)
        self._info[value.name or ""] = Info(value.dtype or ir.DataType.FLOAT, array.shape)
        return value

    def node(
        self,
        op_type: str,
        name: str,
        shape: Shape,
        kind: ir.DataType,
        *inputs: ir.Value,
        **attributes: int,
    ) -> ir.Value:
        node = ir.node(op_type, inputs, attributes or None, name=name)
        value = node.outputs[0]
        value.name, value.dtype, value.shape = name, kind, ir.Shape(shape)
        self._info[name] = Info(kind, shape)
        self._graph.append(node)
        return value


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
    flat = _Writer(model, info).node(
        "Flatten", "jataug_logits", (batch, classes[0]), known.dtype, logits, axis=1
    )
    model.graph.outputs[:] = [flat]
    return flat
