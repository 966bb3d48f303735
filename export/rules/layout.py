"""Rules of ops that move entries without changing them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jataug.errors import UnsupportedOperator

from ..graph.builder import Shape, Term
from .places import collect, constant, static
from .table import rule


@rule("Reshape", "data")
def reshape(g: Term, Y: Term, data: Term, shape: Term, *, allowzero: int = 0) -> Term:
    return g.reshape_like(data)


@rule("Flatten", "input")
def flatten(g: Term, Y: Term, input: Term, *, axis: int = 1) -> Term:
    return g.reshape_like(input)


@rule("Squeeze", "data")
def squeeze(g: Term, Y: Term, data: Term, axes: Term | None = None) -> Term:
    return g.reshape_like(data)


@rule("Unsqueeze", "data")
def unsqueeze(g: Term, Y: Term, data: Term, axes: Term) -> Term:
    return g.reshape_like(data)


@rule("Transpose", "data")
def transpose(g: Term, Y: Term, data: Term, *, perm: Sequence[int] | None = None) -> Term:
    rank = len(data.shape or ())
    forward = list(range(rank))[::-1] if perm is None else [axis % rank for axis in perm]
    return g.transpose([int(i) for i in np.argsort(forward)])


@rule("Concat", "inputs")
def concat(g: Term, Y: Term, *inputs: Term, index: int, axis: int) -> Term:
    *before, size = (static(term, axis, "Concat") for term in inputs[: index + 1])
    return g.slice([sum(before)], [sum(before) + size], [axis])


@rule("Split", "input", every_output=True)
def split(
    gs: Sequence[Term | None],
    Ys: Sequence[Term],
    input: Term,
    split: Term | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
) -> Term:
    if len(Ys) == 1 and gs[0] is not None:
        return gs[0]
    rank = len(input.shape or ())
    sizes = [static(Y, axis, "Split") for Y in Ys]
    # A part that nothing reads becomes zero padding of a neighbouring part.
    parts: list[Term] = []
    missing = 0
    for g, size in zip(gs, sizes, strict=True):
        if g is None:
            missing += size
        else:
            parts.append(g.pad(_at(rank, axis, missing), [0] * rank))
            missing = 0
    parts[-1] = parts[-1].pad([0] * rank, _at(rank, axis, missing))
    return joined(parts, axis, input.shape)


def joined(parts: Sequence[Term], axis: int, shape: Shape | None) -> Term:
    """Return the parts concatenated along `axis`; the result has `shape`."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return first.graph.op("Concat", *parts, dtype=first.dtype, shape=shape, axis=axis)


def _at(rank: int, axis: int, amount: int) -> list[int]:
    pads = [0] * rank
    pads[axis] = amount
    return pads


@rule("Slice", "data")
def slice_(
    g: Term,
    Y: Term,
    data: Term,
    starts: Term,
    ends: Term,
    axes: Term | None = None,
    steps: Term | None = None,
) -> Term:
    rank = len(data.shape or ())
    firsts = constant(starts, "Slice", "starts").tolist()
    lasts = constant(ends, "Slice", "ends").tolist()
    chosen = list(range(len(firsts)))
    if axes is not None:
        chosen = [axis % rank for axis in constant(axes, "Slice", "axes").tolist()]
    strides = [1] * len(firsts)
    if steps is not None:
        strides = constant(steps, "Slice", "steps").tolist()
    for first, last, axis, step in zip(firsts, lasts, chosen, strides, strict=True):
        if (first, step) == (0, 1) and last >= 2**31 - 1:
            continue
        size = static(data, axis, "Slice")
        places = np.arange(size)[slice(first, last, step)]
        if len(places) != static(Y, axis, "Slice"):
            raise UnsupportedOperator(
                f"Slice: runtimes disagree on [{first}:{last}:{step}] of {size} entries; write it "
                "with a start inside the axis"
            )
        g = collect(g, axis, places, size)
    return g


@rule("Tile", "input")
def tile(g: Term, Y: Term, input: Term, repeats: Term) -> Term:
    shape, tiled = input.shape or (), Y.shape or ()
    apart: list[Any] = []
    copies = []
    for axis, (size, whole) in enumerate(zip(shape, tiled, strict=True)):
        if size != whole:
            copies.append(len(apart))
            apart.append(static(Y, axis, "Tile") // static(input, axis, "Tile"))
        apart.append(size)
    return g.reshape(tuple(apart)).sum(copies, False) if copies else g


@rule("Expand", "input")
def expand(g: Term, Y: Term, input: Term, shape: Term) -> Term:
    return g


@rule("DepthToSpace", "input")
def depth_to_space(g: Term, Y: Term, input: Term, *, blocksize: int, mode: str = "DCR") -> Term:
    if mode == "DCR":
        return input.same("SpaceToDepth", g, blocksize=blocksize)
    batch, channels, height, width = input.shape or ()
    b = blocksize
    depth = static(input, 1, "DepthToSpace") // b**2
    apart = g.reshape((batch, depth, height, b, width, b))
    return apart.transpose([0, 1, 3, 5, 2, 4]).reshape((batch, channels, height, width))


@rule("SpaceToDepth", "input")
def space_to_depth(g: Term, Y: Term, input: Term, *, blocksize: int, mode: str = "DCR") -> Term:
    return input.same("DepthToSpace", g, blocksize=blocksize, mode=mode)


@rule("Trilu", "input")
def trilu(g: Term, Y: Term, input: Term, k: Term | None = None, *, upper: int = 1) -> Term:
    diagonal = [] if k is None else [k]
    return input.same("Trilu", g, *diagonal, upper=upper)


@rule("ReverseSequence", "input")
def reverse_sequence(
    g: Term,
    Y: Term,
    input: Term,
    sequence_lens: Term,
    *,
    batch_axis: int = 1,
    time_axis: int = 0,
) -> Term:
    return input.same(
        "ReverseSequence", g, sequence_lens, batch_axis=batch_axis, time_axis=time_axis
    )


@rule("Compress", "input")
def compress(g: Term, Y: Term, input: Term, condition: Term, *, axis: int | None = None) -> Term:
    places = np.flatnonzero(constant(condition, "Compress", "condition"))
    if axis is not None:
        return collect(g, axis, places, static(input, axis, "Compress"))
    size = int(np.prod([static(input, i, "Compress") for i in range(len(input.shape or ()))]))
    return collect(g, 0, places, size).reshape_like(input)
