"""Rules of Conv and ConvTranspose, which are adjoints of each other, and of Col2Im.

The derivative of Conv is a convolution with the flipped, transposed kernel, or a ConvTranspose if
it has strides. The derivative of ConvTranspose is a Conv with the same kernel.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jataug.errors import UnsupportedOperator

from ..graph.builder import Term
from .places import constant
from .table import rule
from .window import Window, window


@rule("Conv", "X")
def conv(
    g: Term,
    Y: Term,
    X: Term,
    W: Term,
    B: Term | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Term:
    kernel = [int(size) for size in (W.shape or ())[2:]]
    geometry = window(X, Y, kernel, auto_pad, dilations, pads, strides)
    if all(s == 1 for s in geometry.strides) and W.const is not None:
        return _by_conv(g, X, W, group, geometry)
    return _by_conv_transpose(g, X, W, group, geometry)


def _by_conv(g: Term, X: Term, W: Term, group: int, geometry: Window) -> Term:
    flipped = g.graph.derived(W, f"flipped_{group}", lambda w: flip(w, group))
    reach = [extent - 1 for extent in geometry.extent]
    before = [r - b for r, b in zip(reach, geometry.before, strict=True)]
    after = [r - a for r, a in zip(reach, geometry.after, strict=True)]
    pads, cropped = _crop_negative(g, before, after)
    return X.same(
        "Conv",
        cropped,
        flipped,
        dilations=list(geometry.dilations),
        group=group,
        kernel_shape=list(geometry.kernel),
        pads=pads,
        strides=[1] * len(pads[::2]),
    )


def _by_conv_transpose(g: Term, X: Term, W: Term, group: int, geometry: Window) -> Term:
    # If the last window ends inside the input, the rest gets no gradient. output_padding adds
    # zeros for it.
    rest = [max(-a, 0) for a in geometry.after]
    small = all(r < s for r, s in zip(rest, geometry.strides, strict=True))
    kernel = g.graph.derived(W, "transposed_kernel", np.copy) if W.const is not None else W
    grown = X.graph.op(
        "ConvTranspose",
        g,
        kernel,
        dtype=X.dtype,
        shape=X.shape if small else None,
        dilations=list(geometry.dilations),
        group=group,
        kernel_shape=list(geometry.kernel),
        output_padding=rest if small else [0] * len(rest),
        pads=[*geometry.before, *(max(a, 0) for a in geometry.after)],
        strides=list(geometry.strides),
    )
    return grown if small else _extend(grown, X, rest)


@rule("ConvTranspose", "X")
def conv_transpose(
    g: Term,
    Y: Term,
    X: Term,
    W: Term,
    B: Term | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Term:
    kernel = [int(size) for size in (W.shape or ())[2:]]
    # The adjoint's window slides over Y and gives X.
    geometry = window(Y, X, kernel, "NOTSET", dilations, pads, strides)
    extra = output_padding or [0] * len(kernel)
    same = auto_pad in ("SAME_UPPER", "SAME_LOWER")
    if same and any(extra) and not output_shape:
        raise UnsupportedOperator(
            f"{Y.value.name}: output_padding with auto_pad {auto_pad}, on whose size runtimes and "
            "ONNX's shape inference disagree"
        )
    before = list(geometry.before) if auto_pad == "NOTSET" else [0] * len(kernel)
    if output_shape or same:
        sizes = zip(geometry.covered, extra, geometry.inputs, strict=True)
        total = [max(covered + more - size, 0) for covered, more, size in sizes]
        before = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
    ends = zip(geometry.covered, before, geometry.inputs, strict=True)
    amounts, cropped = _crop_negative(g, before, [c - b - size for c, b, size in ends])
    own = W if W.const is None else g.graph.derived(W, "adjoint_kernel", np.copy)
    return X.same(
        "Conv",
        cropped,
        own,
        dilations=list(geometry.dilations),
        group=group,
        kernel_shape=kernel,
        pads=amounts,
        strides=list(geometry.strides),
    )


def _extend(grown: Term, X: Term, rest: Sequence[int]) -> Term:
    extended = grown.pad([0] * (2 + len(rest)), [0, 0, *rest])
    extended.shape = X.shape
    return extended


def _crop_negative(g: Term, before: Sequence[int], after: Sequence[int]) -> tuple[list[int], Term]:
    """Crop what a negative pad would remove, because Conv accepts no negative pads."""
    pads = [max(p, 0) for p in (*before, *after)]
    if min(*before, *after, 0) == 0:
        return pads, g
    sizes = [int(size) for size in (g.shape or ())[2:]]
    starts = [max(-b, 0) for b in before]
    ends = [size - max(-a, 0) for size, a in zip(sizes, after, strict=True)]
    return pads, g.slice(starts, ends, range(2, 2 + len(sizes)))


def flip(w: NDArray[Any], group: int) -> NDArray[Any]:
    """Return the kernel with input and output channels swapped and spatial axes reversed.

    The kernel has the shape (M, C / group, ...).
    """
    grouped = w.reshape(group, w.shape[0] // group, *w.shape[1:]).swapaxes(1, 2)
    merged = grouped.reshape(-1, *grouped.shape[2:])
    return np.flip(merged, axis=tuple(range(2, merged.ndim)))


@rule("Col2Im", "input")
def col2im(
    g: Term,
    Y: Term,
    input: Term,
    image_shape: Term,
    block_shape: Term,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Term:
    sizes = constant(image_shape, "Col2Im", "image_shape").tolist()
    block = constant(block_shape, "Col2Im", "block_shape").tolist()
    rank = len(sizes)
    d, s, p = dilations or [1] * rank, strides or [1] * rank, pads or [0] * 2 * rank
    total, inside = np.zeros((), np.int64), np.ones((), bool)
    for i in range(rank):
        reach = sizes[i] + p[i] + p[rank + i] - (d[i] * (block[i] - 1) + 1)
        starts = np.arange(reach // s[i] + 1) * s[i] - p[i]
        # The position of each entry of each block along this axis: (block, position).
        places = starts + np.arange(block[i])[:, None] * d[i]
        total = np.add.outer(total * sizes[i], places)
        inside = np.logical_and.outer(inside, (places >= 0) & (places < sizes[i]))
    order = [*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)]
    flat = np.where(inside, total, prod(sizes)).transpose(order).reshape(-1)
    batch, channels = (g.shape or ())[:2]
    pixels = g.reshape((batch, channels, prod(sizes))).pad([0, 0, 0], [0, 0, 1])
    read = g.graph.op(
        "Gather",
        pixels,
        g.graph.constant(flat),
        dtype=g.dtype,
        shape=(batch, channels, len(flat)),
        axis=2,
    )
    return read.reshape_like(input)
