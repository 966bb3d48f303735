"""Rules of pooling."""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from jataug.errors import UnsupportedOperator

from ..graph import Term
from .elementwise import step
from .table import rule
from .window import Window, scatter, window


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
    geometry = _window(X, Y, kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    lowest = float(np.finfo(X.dtype or np.float32).min)
    before, after = [0, 0, *geometry.before], [0, 0, *(max(a, 0) for a in geometry.after)]
    padded = X.pad(before, after, value=lowest)
    # The first maximum of a window takes the whole cotangent, as in every framework; what is left
    # for the later
    # entries is then zero. Ties are common: plateaus, and pixels clipped to 0 or 1.
    parts, left = {}, g
    for offset in geometry.offsets:
        part = left * step(_entries(padded, offset, geometry).equals(Y), X)
        parts[offset] = part
        if offset != geometry.offsets[-1]:
            left = left - part
    return scatter(parts, geometry, X)


def _window(
    X: Term,
    Y: Term,
    kernel: Sequence[int],
    auto_pad: str,
    ceil_mode: int,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> Window:
    """Return a pool's geometry; a last window of padding alone is refused.

    ONNX's shape inference counts that window, the runtimes leave it out.
    """
    found = window(X, Y, kernel, auto_pad, dilations, pads, strides)
    ends = zip(found.inputs, found.before, found.outputs, found.strides, strict=True)
    if ceil_mode and any((o - 1) * s >= i + b for i, b, o, s in ends):
        raise UnsupportedOperator(
            f"{Y.value.name}: with ceil_mode its last window lies wholly in the padding, which "
            "runtimes leave out and ONNX's shape inference does not"
        )
    return found


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
    geometry = _window(X, Y, kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    # Under auto_pad all that the windows reach is padding; what ceil_mode adds beyond it is not.
    behind = pads[len(geometry.kernel) :] if pads else [0] * len(geometry.kernel)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        behind = geometry.after
    count = window_counts(geometry, behind, bool(count_include_pad))
    share = g * g.graph.constant(1 / count[None, None], X.dtype)
    return scatter(dict.fromkeys(geometry.offsets, share), geometry, X)


def window_counts(
    geometry: Window, behind: Sequence[int], include_pad: bool
) -> NDArray[np.float64]:
    """Return how many entries each window averages over; what ceil_mode adds beyond the padding
    never counts.
    """
    count: NDArray[np.float64] = np.ones(())
    for i, size in enumerate(geometry.outputs):
        b, n = geometry.before[i], geometry.inputs[i]
        first, last = (0, b + n + behind[i]) if include_pad else (b, b + n)
        entry = np.arange(geometry.kernel[i]) * geometry.dilations[i]
        place = np.arange(size)[:, None] * geometry.strides[i] + entry
        along = ((place >= first) & (place < last)).sum(axis=1)
        count = count[..., None] * along
    return count


@rule("GlobalAveragePool", "X")
def global_average_pool(g: Term, Y: Term, X: Term) -> Term:
    sizes = tuple(int(size) for size in (X.shape or ())[2:])
    share = np.full((1, 1, *sizes), 1 / prod(sizes))
    return g * g.graph.constant(share, X.dtype)
