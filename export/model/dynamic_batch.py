"""Makes a model run at any batch size.

1. `settle` replaces computed sizes of Reshape, Expand and Resize by constants, with -1 or 1 for the
   batch. Other values that are the same at every batch become constants too.
2. `free_batch` rewrites constants that hold the file's fixed batch (Reshape to [1, 512], a class
   token of batch 1) for any batch. The caller then runs the rewritten graph beside the original.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from jataug.errors import MissingExtra, ModelError
from jataug.runtime.onnxruntime import Engine, load

from ..graph.builder import Dim, Shape
from ..graph.quantised_values import is_quantised
from ..graph.shapes import BATCH, MIXED, PROBES, Info, Walk, constant, merged
from .folding.fold import fold_constants, register, replace_by_constants
from .gather_rewrite import settle_gather, settle_gather_nd

__all__ = ["free_batch", "settle", "works_alike"]

_AGREES = 1e-3
"""The largest difference of the logits, relative to their spread, that counts as rounding."""


def settle(model: ir.Model, image: str, shape: Shape) -> dict[str, Info]:
    """Replace values that are computed from shapes by constants, in place; return all shapes.

    Raises:
        ModelError: the shapes do not fit together.
    """
    while True:
        sizes = PROBES if shape[:1] == (BATCH,) else shape[:1]
        walks = [Walk(model, image, (n, *shape[1:])).run() for n in sizes] if shape else []
        walks = walks or [Walk(model, image, shape).run()]
        infos = merged(walks[0].infos, walks[-1].infos)
        changed = [_settle_node(model, node, infos, walks) for node in list(model.graph)]
        if not any(changed):
            return infos
        fold_constants(model)


def _settle_node(model: ir.Model, node: ir.Node, infos: dict[str, Info], walks: list[Walk]) -> bool:
    if node.domain or is_quantised(node):  # a runtime can only fuse a weight that stays quantised
        return False
    names = [value.name or "" for value in node.outputs if value.name]
    data = [[walk.data.get(name) for walk in walks] for name in names]
    same = [a for a, *more in data if a is not None and all(_equal(a, b) for b in more)]
    if len(same) == len(names) and not any(v.is_graph_output() for v in node.outputs):
        replace_by_constants(model.graph, node, same)
        return True
    settle_sizes = _SIZED.get(node.op_type)
    if len(node.inputs) < 2 or not (settle_sizes or node.op_type == "Gather"):
        return False
    shapes = [infos[n].shape for n in (_name(node.inputs[0]), names[0]) if n in infos]
    if len(shapes) < 2 or any("?" in shape or MIXED in shape for shape in shapes):
        return False
    if settle_sizes is not None:
        return settle_sizes(model, node, *shapes)
    places = [walk.data.get(_name(node.inputs[1])) for walk in walks]
    return settle_gather(model, node, shapes[0], shapes[1], places)


def _equal(a: Any, b: Any) -> bool:
    return (
        b is not None and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "f")
    )


def _settle_reshape(model: ir.Model, node: ir.Node, before: Shape, after: Shape) -> bool:
    if constant(node.inputs[1]) is not None or 0 in after:
        return False
    if sum(isinstance(size, str) for size in after) > 1:
        return False
    _set_sizes(model, node, 1, [-1 if isinstance(size, str) else size for size in after])
    return True


def _settle_expand(model: ir.Model, node: ir.Node, before: Shape, after: Shape) -> bool:
    padded = (1,) * (len(after) - len(before)) + before
    stretched = any(isinstance(a, str) and a != b for a, b in zip(after, padded, strict=True))
    if constant(node.inputs[1]) is not None or stretched:
        return False
    _set_sizes(model, node, 1, [1 if isinstance(size, str) else size for size in after])
    return True


def _settle_resize(model: ir.Model, node: ir.Node, before: Shape, after: Shape) -> bool:
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    fixed = [i for i, size in enumerate(after) if isinstance(size, int)]
    kept = all(after[i] == before[i] for i in range(len(after)) if i not in fixed)
    if sizes is None or constant(sizes) is not None or "axes" in node.attributes or not kept:
        return False
    node.attributes["axes"] = ir.AttrInt64s("axes", fixed)
    _set_sizes(model, node, 3, [after[i] for i in fixed])
    return True


_SIZED: dict[str, Callable[[ir.Model, ir.Node, Shape, Shape], bool]] = {
    "Expand": _settle_expand,
    "GatherND": settle_gather_nd,
    "Reshape": _settle_reshape,
    "Resize": _settle_resize,
}


def _set_sizes(model: ir.Model, node: ir.Node, i: int, sizes: list[Dim]) -> ir.Value:
    value = register(model.graph, f"{node.name}_sizes", np.array(sizes, np.int64))
    node.replace_input_with(i, value)
    return value


def free_batch(model: ir.Model, image: str, shape: Shape) -> bool:
    """Rewrite, in place, the constants that hold the file's batch size, so that any batch runs.

    Args:
        model: its image input's first axis is the batch.
        image: the name of the image input.
        shape: the image's, with the batch size that the file was made for.

    Returns:
        Whether any batch runs now. If False, the model may be changed in part: throw it away.
    """
    fixed, free = Walk(model, image, shape), Walk(model, image, (PROBES[0], *shape[1:]))
    changed = False
    try:
        for node in list(model.graph):
            fixed.visit(node)
            rewrite = None if node.domain else _REWRITES.get(node.op_type)
            if rewrite is not None:
                changed |= rewrite(model, node, fixed, free)
            free.visit(node)
    except ModelError:
        return False
    return changed


def _free_reshape(model: ir.Model, node: ir.Node, fixed: Walk, free: Walk) -> bool:
    """Set the outermost size that holds the batch to -1, and keep the inner sizes."""
    before, after = (fixed.infos.get(_name(v)) for v in (node.inputs[0], node.outputs[0]))
    now = free.infos.get(_name(node.inputs[0]))
    target = constant(node.inputs[1])
    if before is None or after is None or now is None or target is None:
        return False
    axis = _batch_axis(before.shape, now.shape)
    place = None if axis is None else _place(before.shape, axis, after.shape, int(fixed.batch))
    if place is None:
        return False
    sizes = [-1 if i == place else size for i, size in enumerate(after.shape)]
    free.learn(_set_sizes(model, node, 1, sizes))
    return True


def _batch_axis(before: Shape, now: Shape) -> int | None:
    moved = [i for i, (a, b) in enumerate(zip(before, now, strict=True)) if a != b]
    return moved[0] if len(moved) == 1 else None


def _place(before: Shape, axis: int, after: Shape, batch: int) -> int | None:
    """Return the axis of `after` that corresponds to `axis` of `before`."""
    if "?" in (*before, *after) or 0 in after:
        return None
    outside = np.prod([int(size) for size in before[:axis]], initial=1)
    for place, size in enumerate(after):
        if np.prod([int(s) for s in after[:place]], initial=1) == outside and not int(size) % batch:
            return place
    return None


def _free_concat(model: ir.Model, node: ir.Node, fixed: Walk, free: Walk) -> bool:
    """Expand constants of batch 1, such as a class token, to the batch of the other inputs."""
    along = node.attributes["axis"].as_int()
    shapes = [(v, free.infos.get(_name(v))) for v in node.inputs]
    others = [(v, info) for v, info in shapes if info is not None and constant(v) is None]
    constants = [i for i, v in enumerate(node.inputs) if constant(v) is not None]
    if (
        fixed.batch != 1
        or not constants
        or not others
        or len(others) + len(constants) < len(shapes)
    ):
        return False
    lead, info = others[0]
    was = fixed.infos.get(_name(lead))
    axis = None if was is None else _batch_axis(was.shape, info.shape)
    if axis is None or axis == along % len(info.shape) or lead is None:
        return False
    for i in constants:
        _expand(model, node, i, lead, axis, free)
    return True


def _expand(model: ir.Model, node: ir.Node, i: int, lead: ir.Value, axis: int, free: Walk) -> None:
    old = node.inputs[i]
    rank = len(free.infos[_name(old)].shape)
    prefix = f"{node.name}_{i}"
    ones = register(model.graph, f"{prefix}_ones", np.ones(rank - axis - 1, np.int64))
    size = ir.node("Shape", [lead], {"start": axis, "end": axis + 1})
    parts = [size.outputs[0], ones]
    target = ir.node("Concat", parts, {"axis": 0})
    expand = ir.node("Expand", [old, target.outputs[0]])
    free.learn(ones)
    for step, suffix in ((size, "batch"), (target, "shape"), (expand, "expanded")):
        step.name = f"{prefix}_{suffix}"
        step.outputs[0].name = f"{prefix}_{suffix}"
        model.graph.insert_before(node, step)
        free.visit(step)
    node.replace_input_with(i, expand.outputs[0])


def _free_resize(model: ir.Model, node: ir.Node, fixed: Walk, free: Walk) -> bool:
    sizes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    before, now = fixed.infos.get(_name(node.inputs[0])), free.infos.get(_name(node.inputs[0]))
    if sizes is None or before is None or now is None or "axes" in node.attributes:
        return False
    axis = _batch_axis(before.shape, now.shape)
    if axis is None or sizes[axis] != before.shape[axis]:
        return False
    axes = [i for i in range(len(sizes)) if i != axis]
    node.attributes["axes"] = ir.AttrInt64s("axes", axes)
    free.learn(_set_sizes(model, node, 3, sizes[axes].tolist()))
    return True


_REWRITES: dict[str, Callable[[ir.Model, ir.Node, Walk, Walk], bool]] = {
    "Concat": _free_concat,
    "Reshape": _free_reshape,
    "Resize": _free_resize,
}


def works_alike(fixed: Any, free: Any, image: str, shape: tuple[int, ...]) -> bool:
    """Return whether the freed model gives the same logits as the original, batch by batch.

    Args:
        fixed: the original, as a ModelProto with one output.
        free: the freed model.
        image: the name of the image input.
        shape: the image's, with the original's batch size.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
    """
    try:
        load()
    except MissingExtra as error:
        raise MissingExtra(
            f"the model's batch is fixed at {shape[0]}; whether it can be freed is measured on "
            f"ONNX Runtime. {error}"
        ) from None
    generator = np.random.Generator(np.random.Philox(key=3))
    batch = shape[0]
    images = generator.random((3 * batch, *shape[1:]))
    kind = fixed.graph.input[0].type.tensor_type.elem_type
    images = images.astype(ir.DataType(kind).numpy())
    try:
        single, whole = Engine(fixed, {}, "cpu"), Engine(free, {}, "cpu")
        parts = [images[k : k + batch] for k in range(0, len(images), batch)]
        one = np.concatenate([_first(single.run({image: part})) for part in parts])
        found = _first(whole.run({image: images}))
    except Exception:  # a runtime that fails, with errors of its own, proves nothing
        return False
    if one.shape != found.shape or not np.array_equal(np.isfinite(one), np.isfinite(found)):
        return False
    one, found = one[np.isfinite(one)], found[np.isfinite(found)]
    if not one.size:
        return False
    return bool(np.abs(one - found).max() <= _AGREES * np.abs(one - one.mean()).max())


def _first(found: dict[str, Any]) -> Any:
    return next(iter(found.values())).astype(np.float64)


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""
