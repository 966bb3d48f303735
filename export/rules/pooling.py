"""Rules of pooling."""

from collections.abc import Sequence
from math import prod

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ..graph.builder import Term
from .elementwise import step
from .places import along, product
from .table import rule
from .window import Window, scatter, window

Array = NDArray[np.float64]


@rule("MaxPool", "X")
def max_pool(
    g: Term,
    Y: Term,
    X: Term,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Term:
    geometry = window(X, Y, kernel_shape, auto_pad, dilations, pads, strides)
    # numpy's finfo does not support bfloat16.
    lowest = float(ml_dtypes.finfo(X.dtype or np.float32).min)  # type: ignore[no-untyped-call]
    before, after = [0, 0, *geometry.before], [0, 0, *(max(a, 0) for a in geometry.after)]
    padded = X.pad(before, after, value=lowest)
    # The first maximum of a window takes the whole cotangent, as in every framework, and later
    # ones get zero. Ties are common: plateaus, and pixels clipped to 0 or 1.
    parts, left = {}, g
    for offset in geometry.offsets:
        part = left * step(_entries(padded, offset, geometry).equals(Y), X)
        parts[offset] = part
        if offset != geometry.offsets[-1]:
            left = left - part
    return scatter(parts, geometry, X)


def _entries(padded: Term, offset: Sequence[int], geometry: Window) -> Term:
    spans = zip(offset, geometry.outputs, geometry.strides, strict=True)
    ends = [first + (size - 1) * s + 1 for first, size, s in spans]
    axes = range(2, 2 + len(offset))
    return padded.slice(offset, ends, axes, geometry.strides)


@rule("AveragePool", "X")
def average_pool(
    g: Term,
    Y: Term,
    X: Term,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Term:
    geometry = window(X, Y, kernel_shape, auto_pad, dilations, pads, strides)
    # Under auto_pad everything beyond the input is padding, except what ceil_mode adds.
    behind = pads[len(geometry.kernel) :] if pads else [0] * len(geometry.kernel)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        behind = geometry.after
    counts = window_counts(geometry, behind, bool(count_include_pad))
    if set(geometry.strides) == set(geometry.dilations) == {1}:
        return _averaged(g, counts, geometry, X)
    # On ONNX Runtime this is faster than expanding the cotangent, for adjacent windows too.
    for i, count in enumerate(counts):
        g = along(g, window_matrix(geometry, i) / count[:, None], 2 + i)
    return g


def _averaged(g: Term, counts: Sequence[Array], geometry: Window, X: Term) -> Term:
    """Return the adjoint of averages at stride 1: sums over the windows of the padded cotangent."""
    reach = [extent - 1 for extent in geometry.extent]
    before = [r - b for r, b in zip(reach, geometry.before, strict=True)]
    after = [r - a for r, a in zip(reach, geometry.after, strict=True)]
    mean = X.same(
        "AveragePool",
        _shared(g, counts),
        count_include_pad=1,
        kernel_shape=list(geometry.kernel),
        pads=[*before, *after],
        strides=list(geometry.strides),
    )
    return mean * float(prod(geometry.kernel))


def _shared(g: Term, counts: Sequence[Array]) -> Term:
    """Divide each cotangent by its window's count, which is one number if all are equal."""
    if all((count == count[0]).all() for count in counts):
        return g * (1 / prod(float(count[0]) for count in counts))
    shares: Array = np.ones((1, 1))
    for count in counts:
        shares = shares[..., None] / count
    return g * g.graph.constant(shares, g.dtype)


def _places(geometry: Window, axis: int) -> NDArray[np.int64]:
    """Return the padded position of each entry of each window along a spatial axis."""
    entry = np.arange(geometry.kernel[axis]) * geometry.dilations[axis]
    return np.arange(geometry.outputs[axis])[:, None] * geometry.strides[axis] + entry


def window_matrix(geometry: Window, axis: int) -> Array:
    """Return a matrix with 1 where a window (row) holds an entry (column) along a spatial axis."""
    places = _places(geometry, axis) - geometry.before[axis]
    hits = places[..., None] == np.arange(geometry.inputs[axis])
    return np.asarray(hits.sum(1), np.float64)


def window_counts(geometry: Window, behind: Sequence[int], include_pad: bool) -> list[Array]:
    """Return, for each axis, the number of entries that each window averages.

    Entries that ceil_mode adds beyond the padding never count.
    """
    counts = []
    for i, n in enumerate(geometry.inputs):
        b, places = geometry.before[i], _places(geometry, i)
        first, last = (0, b + n + behind[i]) if include_pad else (b, b + n)
        counts.append(((places >= first) & (places < last)).sum(axis=1).astype(np.float64))
    return counts


@rule("LpPool", "X")
def lp_pool(
    g: Term,
    Y: Term,
    X: Term,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Term:
    geometry = window(X, Y, kernel_shape, auto_pad, dilations, pads, strides)
    shares = _powers(g, Y, p)
    for i in range(len(geometry.kernel)):
        shares = along(shares, window_matrix(geometry, i), 2 + i)
    return shares * _slopes(X, p)


@rule("GlobalLpPool", "X")
def global_lp_pool(g: Term, Y: Term, X: Term, *, p: int = 2) -> Term:
    return _powers(g, Y, p) * _slopes(X, p)


def _powers(g: Term, Y: Term, p: int) -> Term:
    """Return g / Y^(p - 1), and 0 where the norm Y is 0, because all its entries are 0 too."""
    return g if p == 1 else g / (Y + step(Y.equals(0.0), Y)) ** float(p - 1)


def _slopes(X: Term, p: int) -> Term:
    return X.sign() if p == 1 else X if p == 2 else X.sign() * X.abs() ** float(p - 1)


@rule("MaxUnpool", "X")
def max_unpool(
    g: Term,
    Y: Term,
    X: Term,
    I: Term,  # noqa: E741  (the standard's name)
    output_shape: Term | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Term:
    """MaxUnpool: its indices count through the whole result, across images."""
    everything = g.graph.constant(np.array([-1]))
    flat = g.graph.op("Reshape", g, everything, dtype=g.dtype)
    return X.same("Gather", flat, I)


@rule("GlobalMaxPool", "X")
def global_max_pool(g: Term, Y: Term, X: Term) -> Term:
    batch, channels, *sizes = X.shape or ()
    size = product(sizes, "GlobalMaxPool")
    flat = X.reshape((batch, channels, size))
    # The first maximum takes the whole cotangent, as in torch.
    first = flat.graph.op(
        "ArgMax", flat, dtype=np.dtype(np.int64), shape=(batch, channels, 1), axis=2, keepdims=1
    )
    places = flat.graph.constant(np.arange(size))
    return (g.reshape((batch, channels, 1)) * step(first.equals(places), X)).reshape_like(X)


@rule("GlobalAveragePool", "X")
def global_average_pool(g: Term, Y: Term, X: Term) -> Term:
    sizes = tuple(int(size) for size in (X.shape or ())[2:])
    share = np.full((1, 1, *sizes), 1 / prod(sizes))
    return g * g.graph.constant(share, X.dtype)
