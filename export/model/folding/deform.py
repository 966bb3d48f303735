"""Rewrites DeformConv: GridSample reads entries at the offsets, and MatMul applies the kernel."""

from typing import Any

import numpy as np
import onnx_ir as ir

from .node_rewriter import NodeRewriter
from .static_values import StaticValues

__all__ = ["write_deform_conv"]

Value = ir.Value


def write_deform_conv(rewriter: NodeRewriter, static: StaticValues) -> str | None:
    """Replace a DeformConv over images; return the reason if it cannot be replaced, else None."""
    X, W, offset, *optional = rewriter.node.inputs
    B, mask = [*optional, None, None][:2]
    if X is None or W is None or offset is None:
        return rewriter.refusal("it needs its first three inputs")
    if static.rank(X) != 4 or static.rank(offset) != 4:
        return rewriter.refusal("only images have a derivative, and their sizes must be known")
    sizes = [static.size(X, 1), static.size(X, 2), static.size(X, 3)]
    found = [static.size(W, i) for i in range(4)] + [static.size(offset, i) for i in (2, 3)]
    dtype = static.dtype(X)
    if dtype is None or any(size is None for size in (*sizes, *found)):
        return rewriter.refusal("only images have a derivative, and their sizes must be known")
    channels, *image = (int(size or 0) for size in sizes)
    results, _, kh, kw, *out = (int(size or 0) for size in found)
    group, shared = rewriter.number("group", 1), rewriter.number("offset_group", 1)
    entries, (oh, ow) = kh * kw, out
    grids = _grids(rewriter, offset, (shared, kh, kw, oh, ow), image, dtype)
    parts = _parts(rewriter, X, shared, 1)
    masks = [None] * shared if mask is None else _parts(rewriter, mask, shared, 1)
    mode = "linear" if static.model.opset_imports.get("", 0) >= 20 else "bilinear"
    read = []
    for part, grid, weight in zip(parts, grids, masks, strict=True):
        sampled = rewriter.op("GridSample", part, grid, mode=mode, align_corners=0)
        sampled = _reshape(rewriter, sampled, 0, channels // shared, entries, oh * ow)
        if weight is not None:
            sampled = rewriter.op(
                "Mul", sampled, _reshape(rewriter, weight, 0, 1, entries, oh * ow)
            )
        read.append(sampled)
    whole = read[0] if shared == 1 else rewriter.op("Concat", *read, axis=1)
    columns = _reshape(rewriter, whole, 0, group, channels // group * entries, oh * ow)
    kernel = _reshape(rewriter, W, group, results // group, -1)
    result = _reshape(rewriter, rewriter.op("MatMul", kernel, columns), 0, results, oh, ow)
    if B is not None:
        result = rewriter.op("Add", result, _reshape(rewriter, B, 1, results, 1, 1))
    rewriter.replace([result])
    return None


def _grids(
    rewriter: NodeRewriter,
    offset: Value,
    sizes: tuple[int, int, int, int, int],
    image: list[int],
    dtype: np.dtype[Any],
) -> list[Value]:
    """Return GridSample's grid for each group of channels: (N, entries * height, width, 2)."""
    shared, kh, kw, oh, ow = sizes
    strides, dilations = rewriter.number("strides", [1, 1]), rewriter.number("dilations", [1, 1])
    before = (rewriter.number("pads", None) or [0, 0])[:2]
    starts = [
        np.arange(size)[None] * strides[i] - before[i] + np.arange(k)[:, None] * dilations[i]
        for i, (k, size) in enumerate(((kh, oh), (kw, ow)))
    ]
    rows = np.broadcast_to(starts[0][:, None, :, None], (kh, kw, oh, ow))
    columns = np.broadcast_to(starts[1][None, :, None, :], (kh, kw, oh, ow))
    base = np.stack([rows, columns], -1).reshape(kh * kw, oh, ow, 2)
    extent = np.array(image)
    first = rewriter.constant(((2 * base + 1) / extent - 1).astype(dtype))
    scale = rewriter.constant((2 / extent).astype(dtype))
    turned = rewriter.constant(np.array([1, 0]))
    grids = []
    for part in _parts(rewriter, offset, shared, 1):
        pairs = _reshape(rewriter, part, 0, kh * kw, 2, oh, ow)
        last = rewriter.op("Transpose", pairs, perm=[0, 1, 3, 4, 2])
        at = rewriter.op("Add", rewriter.op("Mul", last, scale), first)
        # Offsets are (y, x), and grids are (x, y).
        at = rewriter.op("Gather", at, turned, axis=4)
        grids.append(_reshape(rewriter, at, 0, kh * kw * oh, ow, 2))
    return grids


def _parts(rewriter: NodeRewriter, value: Value, count: int, axis: int) -> list[Value]:
    if count == 1:
        return [value]
    return list(rewriter.op("Split", value, outputs=count, axis=axis, num_outputs=count))


def _reshape(rewriter: NodeRewriter, value: Value, *shape: int) -> Value:
    found: Value = rewriter.op("Reshape", value, rewriter.constant(np.array(shape)))
    return found
