"""Valid random graphs of 2 to 20 nodes: random ops, shapes, broadcasts and shared values."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["STEPS", "random_graph"]

BATCH = 2


class Draft:
    """A graph under construction; the first axis of every value is the batch.

    Attributes:
        shapes: of the values to choose from, at BATCH images.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        sizes = self.random.integers(1, 5, self.random.integers(1, 4)).tolist()
        self.shapes: dict[str, tuple[int, ...]] = {"x": (BATCH, *sizes)}
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def pick(self, rank: int | None = None) -> str | None:
        """One of the values, of this rank; the latest are the likeliest."""
        names = [n for n, s in self.shapes.items() if rank is None or len(s) == rank]
        if not names:
            return None
        return names[-1 - int(len(names) * self.random.random() ** 2)]

    def weight(self, array: Any) -> str:
        name = f"w{len(self.weights)}"
        array = np.asarray(array)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, *shape: int) -> str:
        return self.weight(self.random.standard_normal(shape))

    def add(self, op_type: str, inputs: list[str], shape: Any, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        self.shapes[name] = tuple(int(size) for size in shape)
        return name

    def axis(self, shape: tuple[int, ...]) -> int:
        """Any axis but the batch."""
        return int(self.random.integers(1, len(shape)))

    def coin(self) -> bool:
        return bool(self.random.random() < 0.5)


Step = Callable[[Draft, str, tuple[int, ...]], Any]
STEPS: dict[str, Step] = {}


def step(function: Step) -> Step:
    STEPS[function.__name__] = function
    return function


_BOUNDED = ["Tanh", "Sigmoid", "Sin", "Cos", "Atan", "Softsign", "Erf", "HardSigmoid", "Asinh"]
_GROWING = ["Relu", "Elu", "Selu", "LeakyRelu", "Softplus", "Mish", "HardSwish", "Gelu"]
_GROWING += ["Abs", "Neg", "Identity"]
_FLAT = ["Sign", "Floor", "Ceil", "Round"]


@step
def unary(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    ops = _BOUNDED * 2 + _GROWING * 2 + _FLAT
    draft.add(str(draft.random.choice(ops)), [x], shape)


@step
def positive(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    squared = draft.add("Mul", [x, x], shape)
    above = draft.add("Add", [squared, draft.weight(np.array(1.0))], shape)
    draft.add(str(draft.random.choice(["Log", "Sqrt", "Reciprocal"])), [above], shape)


@step
def binary(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    """With another value or a constant, stretched along some axes."""
    fits = [n for n, s in draft.shapes.items() if _broadcast(s, shape) is not None]
    if fits and draft.coin():
        other = str(draft.random.choice(fits))
        result = _broadcast(draft.shapes[other], shape)
    else:
        sizes = [1, *(1 if draft.coin() else size for size in shape[1:])]
        other, result = draft.normal(*sizes[int(draft.random.integers(0, len(sizes))) :]), shape
    op = str(draft.random.choice(["Add", "Sub", "Mul", "Max", "Min", "Sum"]))
    if draft.shapes.get(other) == shape and draft.coin():
        op = "Mean"  # onnx's own evaluator adds in place, without broadcasting
    draft.add(op, [x, other] if draft.coin() else [other, x], result)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    if len(a) != len(b) or a[0] != b[0]:
        return None
    if any(x != y and 1 not in (x, y) for x, y in zip(a, b, strict=True)):
        return None
    return tuple(map(max, a, b))


@step
def divide(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    away = draft.weight(draft.random.uniform(1, 2, shape[1:]))
    if draft.coin():
        away = draft.add("Add", [draft.add("Abs", [x], shape), away], shape)
    draft.add("Div", [x, away], shape)


@step
def power(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    draft.add("Pow", [x, draft.weight(np.array(draft.random.choice([2.0, 3.0])))], shape)


@step
def where(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    mask = f"mask{len(draft.nodes)}"
    zero = draft.weight(np.array(0.1))
    draft.nodes.append(helper.make_node("Greater", [x, zero], [mask]))
    draft.add("Where", [mask, x, draft.normal(*shape[1:])], shape)


@step
def clip(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    bounds = [draft.weight(np.array(b)) for b in (-0.7, 0.9)]
    draft.add("Clip", [x, *bounds], shape)


@step
def reduce(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        return
    some = draft.random.permutation(np.arange(1, len(shape)))
    axes = sorted(some[: draft.random.integers(1, len(shape))].tolist())
    keep = draft.coin()
    result = [1 if i in axes else s for i, s in enumerate(shape) if keep or i not in axes]
    ops = ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceLogSumExp", "ReduceL2"]
    op = str(draft.random.choice([*ops, "ReduceSumSquare", "ReduceL1", "ReduceProd"]))
    draft.add(op, [x, draft.weight(np.array(axes))], result, keepdims=int(keep))


@step
def normalize(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        return
    op = str(draft.random.choice(["Softmax", "LogSoftmax"]))
    draft.add(op, [x], shape, axis=draft.axis(shape))


@step
def layer_norm(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        return
    axis = draft.axis(shape)
    weights = [draft.normal(*shape[axis:]), draft.normal(*shape[axis:])]
    draft.add("LayerNormalization", [x, *weights], shape, axis=axis, epsilon=0.1)


@step
def channel_norm(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 3:
        return
    weights = [draft.normal(shape[1]) for _ in range(2)]
    if draft.coin():
        statistics = [draft.normal(shape[1])]
        statistics += [draft.weight(draft.random.uniform(0.5, 2, shape[1]))]
        draft.add("BatchNormalization", [x, *weights, *statistics], shape)
    else:
        draft.add("InstanceNormalization", [x, *weights], shape, epsilon=0.1)


@step
def transpose(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    perm = [0, *(1 + draft.random.permutation(len(shape) - 1)).tolist()]
    draft.add("Transpose", [x], [shape[i] for i in perm], perm=perm)


@step
def reshape(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    rest = int(np.prod(shape[1:]))
    divisors = [d for d in range(1, rest + 1) if rest % d == 0]
    first = int(draft.random.choice(divisors))
    sizes = [first, rest // first] if draft.coin() else [rest]
    target = [0 if draft.coin() else -1, *sizes]
    draft.add("Reshape", [x, draft.weight(np.array(target))], [shape[0], *sizes])


@step
def flatten(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    draft.add("Flatten", [x], [shape[0], int(np.prod(shape[1:]))])


@step
def unsqueeze(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) > 4:
        return
    axis = int(draft.random.integers(1, len(shape) + 1))
    result = [*shape[:axis], 1, *shape[axis:]]
    made = draft.add("Unsqueeze", [x, draft.weight(np.array([axis]))], result)
    if draft.coin():
        draft.add("Squeeze", [made, draft.weight(np.array([axis]))], shape)


@step
def concat(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 2 or max(shape) > 12:
        return
    axis = draft.axis(shape)
    fits = [
        (n, s)
        for n, s in draft.shapes.items()
        if len(s) == len(shape) and s[:axis] + s[axis + 1 :] == shape[:axis] + shape[axis + 1 :]
    ]
    other, size = fits[draft.random.integers(len(fits))]
    result = [*shape[:axis], shape[axis] + size[axis], *shape[axis + 1 :]]
    draft.add("Concat", [x, other], result, axis=axis)


@step
def cut(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    """Slice, with steps of either sign."""
    if len(shape) < 2:
        return
    axis = draft.axis(shape)
    start, stride = int(draft.random.integers(0, shape[axis])), int(draft.random.integers(1, 3))
    if draft.coin():
        bounds, taken = (start, 2**31, axis, stride), range(start, shape[axis], stride)
    else:
        bounds, taken = (start, -(2**31), axis, -stride), range(start, -1, -stride)
    numbers = [draft.weight(np.array([b])) for b in bounds]
    draft.add("Slice", [x, *numbers], [*shape[:axis], len(taken), *shape[axis + 1 :]])


@step
def pad(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    mode = str(draft.random.choice(["constant", "edge", "reflect"]))
    most = [0, *(size - 1 if mode == "reflect" else 2 for size in shape[1:])]
    before, after = ([int(draft.random.integers(0, min(2, m) + 1)) for m in most] for _ in range(2))
    result = [s + b + a for s, b, a in zip(shape, before, after, strict=True)]
    draft.add("Pad", [x, draft.weight(np.array([*before, *after]))], result, mode=mode)


@step
def gather(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        return
    axis = draft.axis(shape)
    places = draft.random.integers(-shape[axis], shape[axis], draft.random.integers(1, 4))
    result = [*shape[:axis], len(places), *shape[axis + 1 :]]
    draft.add("Gather", [x, draft.weight(places)], result, axis=axis)


@step
def repeat(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    """Tile, or Expand along axes of size 1."""
    if int(np.prod(shape)) > 200:
        return
    if draft.coin():
        counts = [1, *draft.random.integers(1, 3, len(shape) - 1).tolist()]
        result = np.multiply(shape, counts)
        draft.add("Tile", [x, draft.weight(np.array(counts))], result)
    else:
        sizes = [1, *(3 if size == 1 else size for size in shape[1:])]
        draft.add("Expand", [x, draft.weight(np.array(sizes))], [shape[0], *sizes[1:]])


@step
def matmul(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        return
    width = int(draft.random.integers(1, 4))
    draft.add("MatMul", [x, draft.normal(shape[-1], width)], [*shape[:-1], width])


@step
def attention(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    """A value times its own transpose, as attention has it."""
    if len(shape) != 3:
        return
    turned = draft.add("Transpose", [x], [shape[0], shape[2], shape[1]], perm=[0, 2, 1])
    draft.add("MatMul", [x, turned], [shape[0], shape[1], shape[1]])


@step
def gemm(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        return
    width, turned = int(draft.random.integers(1, 4)), draft.coin()
    weight = draft.normal(width, shape[1]) if turned else draft.normal(shape[1], width)
    draft.add(
        "Gemm", [x, weight, draft.normal(width)], [shape[0], width], alpha=0.7, transB=int(turned)
    )


@step
def conv(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 3:
        return
    spatial, group = len(shape) - 2, int(shape[1] if draft.coin() else 1)
    kernel = draft.random.integers(1, 4, spatial).tolist()
    strides, dilations = (draft.random.integers(1, 3, spatial).tolist() for _ in range(2))
    pads = draft.random.integers(0, 3, 2 * spatial).tolist()
    # onnx's own ConvTranspose, which the gradient is, knows groups of one channel only.
    width = group * (1 if group > 1 else int(draft.random.integers(1, 3)))
    sizes = []
    for i in range(spatial):
        extent = (kernel[i] - 1) * dilations[i] + 1
        sizes.append((shape[2 + i] + pads[i] + pads[i + spatial] - extent) // strides[i] + 1)
    if min(sizes) < 1:
        return
    weights = [draft.normal(width, shape[1] // group, *kernel), draft.normal(width)]
    options = {"strides": strides, "dilations": dilations, "pads": pads, "group": group}
    draft.add("Conv", [x, *weights], [shape[0], width, *sizes], **options)


@step
def pool(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 4 or min(shape[2:]) < 2:
        return
    stride = int(draft.random.integers(1, 3))
    sizes = [(size - 2) // stride + 1 for size in shape[2:]]
    op = str(draft.random.choice(["MaxPool", "AveragePool"]))
    options = {"kernel_shape": [2, 2], "strides": [stride] * 2}
    draft.add(op, [x], [*shape[:2], *sizes], **options)


@step
def global_pool(draft: Draft, x: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 4:  # onnx's own evaluator drops an axis of the maximum at other ranks
        return
    op = str(draft.random.choice(["GlobalAveragePool", "GlobalMaxPool"]))
    draft.add(op, [x], [*shape[:2], *[1] * (len(shape) - 2)])


def random_graph(seed: int) -> tuple[onnx.ModelProto, np.ndarray]:
    """Return a model in float64 of a symbolic batch, and a value for its input."""
    draft = Draft(seed)
    wanted = int(draft.random.integers(2, 21))
    while len(draft.nodes) < wanted:
        before = len(draft.nodes)
        name = draft.pick() or "x"
        chosen = list(STEPS.values())[draft.random.integers(len(STEPS))]
        chosen(draft, name, draft.shapes[name])
        if len(draft.nodes) > 20:
            del draft.nodes[before:]
            break
        if len(draft.nodes) > before and draft.random.random() < 0.7:
            _join(draft)
    nodes = draft.nodes or [helper.make_node("Tanh", ["x"], ["v0"])]
    made = {name for node in nodes for name in node.output}
    last = [name for name in draft.shapes if name in made][-1:] or ["v0"]
    shape = draft.shapes["x"]
    image = helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["batch", *shape[1:]])
    result = onnx.ValueInfoProto(name=last[0])
    result.type.tensor_type.elem_type = TensorProto.DOUBLE
    graph = helper.make_graph(nodes, f"seed {seed}", [image], [result], draft.weights)
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return model, draft.random.standard_normal(shape)


def _join(draft: Draft) -> None:
    """Use the newest value together with an older one, so that values are shared."""
    newest = list(draft.shapes)[-1]
    shape = draft.shapes[newest]
    fits = [n for n, s in draft.shapes.items() if s == shape and n != newest]
    if fits and len(draft.nodes) < 20:
        other = str(draft.random.choice(fits))
        draft.add(str(draft.random.choice(["Add", "Mul"])), [newest, other], shape)
