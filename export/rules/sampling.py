"""Rules of ops that read an image at computed places: GridSample; and Col2Im.

Bilinear reading has a weight that factors into a hat along each axis, so the image's derivative is
two products with computed matrices: no scatter. The grid's derivative is the difference of two
readings.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from jataug.errors import UnsupportedOperator

from ..graph import Term
from .elementwise import step
from .places import ONE_HOT, constant, product, static
from .table import rule

_MODES = {"linear": "linear", "bilinear": "linear", "nearest": "nearest"}


@rule("GridSample", "X")
def grid_sample_image(
    g: Term,
    Y: Term,
    X: Term,
    grid: Term,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Term:
    kind = _kind(X, mode)
    height, width = static(X, 2, "GridSample"), static(X, 3, "GridSample")
    points = product((g.shape or ())[2:], "GridSample")
    if (entries := static(X, 1, "GridSample") * height * points) > ONE_HOT:
        raise UnsupportedOperator(
            f"GridSample: its derivative with respect to the image needs {entries} intermediate "
            f"numbers an image; at most {ONE_HOT} are made"
        )
    batch, channels = (X.shape or ())[:2]
    places = [
        _place(grid, i, size, align_corners, padding_mode, kind == "nearest")
        for i, size in ((1, height), (0, width))
    ]
    down, across = (
        _weights(place.reshape(((place.shape or ())[0], 1, points, 1)), size, kind)
        for place, size in zip(places, (height, width), strict=True)
    )
    flat = g.reshape((batch, channels, 1, points))
    return (flat * down.transpose([0, 1, 3, 2])).matmul(across)


@rule("GridSample", "grid")
def grid_sample_grid(
    g: Term,
    Y: Term,
    X: Term,
    grid: Term,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Term:
    if _kind(X, mode) == "nearest":
        raise UnsupportedOperator("GridSample: read at the nearest entry, its grid moves nothing")
    sizes = [static(X, 3, "GridSample"), static(X, 2, "GridSample")]
    x, y = (_place(grid, i, sizes[i], align_corners, padding_mode, False) for i in (0, 1))

    def read(x: Term, y: Term) -> Term:
        columns = [
            _normalised(place, size, align_corners)
            for place, size in zip((x, y), sizes, strict=True)
        ]
        shape = grid.shape or ()
        at = grid.graph.op("Concat", *columns, dtype=grid.dtype, shape=shape, axis=3)
        options = {"align_corners": align_corners, "mode": mode, "padding_mode": "zeros"}
        return Y.same("GridSample", X, at, **options)

    left, top = x.same("Floor", x), y.same("Floor", y)
    slopes = [
        read(left + 1.0, y) - read(left, y),
        read(x, top + 1.0) - read(x, top),
    ]
    parts = [
        (g * slope).sum([1], False).reshape(x.shape or (), x) * factor
        for slope, factor in zip(
            slopes,
            [_speed(grid, i, sizes[i], align_corners, padding_mode) for i in (0, 1)],
            strict=True,
        )
    ]
    return grid.graph.op("Concat", *parts, dtype=grid.dtype, shape=grid.shape, axis=3)


def _kind(X: Term, mode: str) -> str:
    if mode not in _MODES:
        raise UnsupportedOperator(f"GridSample: no derivative rule for mode {mode!r}")
    if len(X.shape or ()) != 4:
        raise UnsupportedOperator(f"GridSample: a rule for images only, got shape {X.shape}")
    return _MODES[mode]


def _place(grid: Term, i: int, size: int, corners: int, padding: str, rounded: bool) -> Term:
    """Return coordinate `i` of the grid in pixels, (N, H, W, 1), folded back into the image."""
    place = _pixels(grid, i, size, corners)
    if rounded:
        place = place.same("Round", place)
    if padding == "reflection":
        low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
        # A triangular wave: up to `high` and back.
        span = max(high - low, 1e-6)
        turn = place - low - _periods(place, low, span) * (2 * span)
        place = span - (turn - span).abs() + low
    if padding in ("border", "reflection"):
        place = place.maximum(0.0).minimum(size - 1.0)
    return place


def _periods(place: Term, low: float, span: float) -> Term:
    turns = (place - low) * (1 / (2 * span))
    return turns.same("Floor", turns)


def _pixels(grid: Term, i: int, size: int, corners: int) -> Term:
    coordinate = grid.slice([i], [i + 1], [3])
    if corners:
        return (coordinate + 1.0) * ((size - 1) / 2)
    return ((coordinate + 1.0) * float(size) - 1.0) * 0.5


def _normalised(place: Term, size: int, corners: int) -> Term:
    if corners:
        return place * (2 / max(size - 1, 1)) - 1.0
    return (place * 2.0 + 1.0) * (1 / size) - 1.0


def _speed(grid: Term, i: int, size: int, corners: int, padding: str) -> Term:
    """Return the pixels that a place moves for a unit of the grid; none beyond a border."""
    pixels = _pixels(grid, i, size, corners)
    unit = (size - 1) / 2 if corners else size / 2
    if padding == "zeros":
        return grid.graph.constant(unit, grid.dtype)
    sign = None
    if padding == "reflection":
        low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
        span = max(high - low, 1e-6)
        turn = pixels - low - _periods(pixels, low, span) * (2 * span)
        sign = (span - turn).sign()
        pixels = span - (turn - span).abs() + low
    inside = step((pixels >= 0.0) & (pixels <= size - 1.0), grid) * unit
    return inside if sign is None else inside * sign


def _weights(place: Term, size: int, kind: str) -> Term:
    """Return the weight of each of `size` entries along a new last axis."""
    entries = place.graph.constant(np.arange(size), place.dtype)
    if kind == "nearest":
        return step(place.equals(entries), place)
    return (1.0 - (place - entries).abs()).relu()


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
        # Where each entry of each block lies along this axis: (block, position).
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
