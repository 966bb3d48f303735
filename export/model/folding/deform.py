"""DeformConv written out: its kernel's entries are read where the offsets say, by GridSample, and
multiplied by the weights.
"""

from typing import Any

import numpy as np
import onnx_ir as ir

from .node_rewriter import Place
from .static_values import Known

__all__ = ["write_deform_conv"]

Value = ir.Value


def write_deform_conv(place: Place, known: Known) -> str | None:
    """Replace a DeformConv over images, and tell why not where that cannot be."""
    X, W, offset, *optional = place.node.inputs
    B, mask = [*optional, None, None][:2]
    if X is None or W is None or offset is None:
        return place.refusal("it needs its first three inputs")
    if known.rank(X) != 4 or known.rank(offset) != 4:
        return place.refusal("only images have a derivative, and their sizes must be known")
    sizes = [known.size(X, 1), known.size(X, 2), known.size(X, 3)]
    found = [known.size(W, i) for i in range(4)] + [known.size(offset, i) for i in (2, 3)]
    dtype = known.dtype(X)
    if dtype is None or any(size is None for size in (*sizes, *found)):
        return place.refusal("only images have a derivative, and their sizes must be known")
    channels, *image = (int(size or 0) for size in sizes)
    results, _, kh, kw, *out = (int(size or 0) for size in found)
    group, shared = place.number("group", 1), place.number("offset_group", 1)
    entries, (oh, ow) = kh * kw, out
    grids = _grids(place, offset, (shared, kh, kw, oh, ow), image, dtype)
    parts = _parts(place, X, shared, 1)
    masks = [None] * shared if mask is None else _parts(place, mask, shared, 1)
    mode = "linear" if known.model.opset_imports.get("", 0) >= 20 else "bilinear"
    read = []
    for part, grid, weight in zip(parts, grids, masks, strict=True):
        sampled = place.op("GridSample", part, grid, mode=mode, align_corners=0)
        sampled = _reshape(place, sampled, 0, channels // shared, entries, oh * ow)
        if weight is not None:
            sampled = place.op("Mul", sampled, _reshape(place, weight, 0, 1, entries, oh * ow))
        read.append(sampled)
    whole = read[0] if shared == 1 else place.op("Concat", *read, axis=1)
    columns = _reshape(place, whole, 0, group, channels // group * entries, oh * ow)
    kernel = _reshape(place, W, group, results // group, -1)
    result = _reshape(place, place.op("MatMul", kernel, columns), 0, results, oh, ow)
    if B is not None:
        result = place.op("Add", result, _reshape(place, B, 1, results, 1, 1))
    place.replace([result])
    return None


def _grids(
    place: Place,
    offset: Value,
    sizes: tuple[int, int, int, int, int],
    image: list[int],
    dtype: np.dtype[Any],
) -> list[Value]:
    """Return where each group of channels is read: (N, entries * height, width, 2), as GridSample
    takes it.
    """
    shared, kh, kw, oh, ow = sizes
    strides, dilations = place.number("strides", [1, 1]), place.number("dilations", [1, 1])
    before = (place.number("pads", None) or [0, 0])[:2]
    starts = [
        np.arange(size)[None] * strides[i] - before[i] + np.arange(k)[:, None] * dilations[i]
        for i, (k, size) in enumerate(((kh, oh), (kw, ow)))
    ]
    rows = np.broadcast_to(starts[0][:, None, :, None], (kh, kw, oh, ow))
    columns = np.broadcast_to(starts[1][None, :, None, :], (kh, kw, oh, ow))
    base = np.stack([rows, columns], -1).reshape(kh * kw, oh, ow, 2)
    extent = np.array(image)
    first = place.constant(((2 * base + 1) / extent - 1).astype(dtype))
    scale = place.constant((2 / extent).astype(dtype))
    turned = place.constant(np.array([1, 0]))
    grids = []
    for part in _parts(place, offset, shared, 1):
        pairs = _reshape(place, part, 0, kh * kw, 2, oh, ow)
        last = place.op("Transpose", pairs, perm=[0, 1, 3, 4, 2])
        at = place.op("Add", place.op("Mul", last, scale), first)
        # Offsets are (y, x), a grid is (x, y).
        at = place.op("Gather", at, turned, axis=4)
        grids.append(_reshape(place, at, 0, kh * kw * oh, ow, 2))
    return grids


def _parts(place: Place, value: Value, count: int, axis: int) -> list[Value]:
    if count == 1:
        return [value]
    return list(place.op("Split", value, outputs=count, axis=axis, num_outputs=count))


def _reshape(place: Place, value: Value, *shape: int) -> Value:
    found: Value = place.op("Reshape", value, place.constant(np.array(shape)))
    return found
