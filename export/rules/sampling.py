"""Rule of GridSample, which reads an image at computed positions.

The weight of an entry is a product of one weight per axis, so the derivative with respect to the
image is a product of computed matrices and needs no scatter. The grid's derivative is, along each
axis, a sum of readings at whole positions, which GridSample makes. Borders follow ONNX Runtime,
which folds back each entry that a kernel reaches beyond the border.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from jataug.errors import UnsupportedOperator

from ..graph.builder import Term
from .elementwise import step
from .indexing import zeros_like
from .places import ONE_HOT, product, static
from .table import rule

_MODES = {"linear": 1, "bilinear": 1, "nearest": 0, "cubic": 2, "bicubic": 2}
"""How far the kernel of each mode reaches. Longer names are those before opset 20."""

_CUBIC = -0.75

_PARTS = 64
"""The most parts into which a table of weights is cut."""


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
    reach, sizes = _reach(mode), _sizes(X)
    batch, channels = (X.shape or ())[:2]
    points = product((g.shape or ())[2:], "GridSample")
    parts = _parts(static(X, 1, "GridSample") * prod(sizes[:-1]), points)
    places = [
        _pixels(grid, i, size, align_corners).reshape(((grid.shape or ())[0], 1, points, 1))
        for i, size in enumerate(sizes)
    ]
    flat = g.reshape((batch, channels, 1, points))
    total = None
    for first in range(0, points, -(-points // parts)):
        last = min(first + -(-points // parts), points)
        *leading, across = (
            _weights(_part(place, first, last, 2), size, reach, align_corners, padding_mode)
            for place, size in zip(places, sizes, strict=True)
        )
        down = _all_pairs(leading).transpose([0, 1, 3, 2])
        part = (_part(flat, first, last, 3) * down).matmul(across)
        total = part if total is None else total + part
    if total is None:
        return zeros_like(X)
    return total.reshape_like(X)


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
    reach, sizes = _reach(mode), _sizes(X)
    if reach == 0:
        return zeros_like(grid)
    places = [_pixels(grid, i, size, align_corners) for i, size in enumerate(sizes)]

    def read(axis: int, place: Term) -> Term:
        """Return the reading with another position along one axis."""
        moved = [*places[:axis], place, *places[axis + 1 :]]
        columns = [
            _normalised(at, size, align_corners) for at, size in zip(moved, sizes, strict=True)
        ]
        at = grid.same("Concat", *columns[::-1], axis=len(sizes) + 1)
        options = {"align_corners": align_corners, "mode": mode, "padding_mode": padding_mode}
        return Y.same("GridSample", X, at, **options)

    slopes = []
    for axis, (place, size) in enumerate(zip(places, sizes, strict=True)):
        floor = place.same("Floor", place)
        if reach == 1:
            slope = read(axis, floor + 1.0) - read(axis, floor)
        else:
            slope = _cubic_slope(
                place - floor, [read(axis, floor + t) for t in (-1.0, 0.0, 1.0, 2.0)]
            )
        unit = (size - 1) / 2 if align_corners else size / 2
        slopes.append((g * slope).sum([1], False).reshape(place.shape or (), place) * unit)
    return grid.same("Concat", *slopes[::-1], axis=len(sizes) + 1)


def _reach(mode: str) -> int:
    if mode not in _MODES:
        raise UnsupportedOperator(f"GridSample: no derivative rule for mode {mode!r}")
    return _MODES[mode]


def _sizes(X: Term) -> list[int]:
    return [static(X, axis, "GridSample") for axis in range(2, len(X.shape or ()))]


def _parts(rows: int, points: int) -> int:
    """Return the number of parts of the points that keeps tables within ONE_HOT entries."""
    parts = -(-rows * points // ONE_HOT) or 1
    if parts > _PARTS:
        raise UnsupportedOperator(
            f"GridSample: its derivative with respect to the image needs {rows * points} "
            f"intermediate numbers per image, more than the limit of {_PARTS * ONE_HOT}"
        )
    return parts


def _part(term: Term, first: int, last: int, axis: int) -> Term:
    whole = (term.shape or ())[axis] == last - first
    return term if whole else term.slice([first], [last], [axis])


def _all_pairs(weights: Sequence[Term]) -> Term:
    """Return the products of the weights along several axes: (N, 1, points, entries)."""
    found = weights[0]
    for weight in weights[1:]:
        *outer, size = found.shape or ()
        inner = (weight.shape or ())[-1]
        pairs = found.reshape((*outer, size, 1)) * weight.reshape((*outer, 1, inner))
        found = pairs.reshape((*outer, int(size) * int(inner)))
    return found


def _pixels(grid: Term, axis: int, size: int, corners: int) -> Term:
    """Return the positions along a spatial axis, in pixels: (N, ..., 1).

    The grid holds the axes in reverse order.
    """
    rank = len(grid.shape or ())
    i = rank - 3 - axis
    coordinate = grid.slice([i], [i + 1], [rank - 1])
    if corners:
        return (coordinate + 1.0) * ((size - 1) / 2)
    return ((coordinate + 1.0) * float(size) - 1.0) * 0.5


def _normalised(place: Term, size: int, corners: int) -> Term:
    if corners:
        return place * (2 / max(size - 1, 1)) - 1.0
    return (place * 2.0 + 1.0) * (1 / size) - 1.0


def _weights(place: Term, size: int, reach: int, corners: int, padding: str) -> Term:
    """Return the weight of each of `size` entries, along a new last axis, in a reading."""
    if reach == 0:
        place = place.same("Round", place)
    beyond = 0 if padding == "zeros" else reach + 1
    if padding == "border":
        # Farther away, a kernel reaches only the border.
        place = place.maximum(float(-reach)).minimum(size - 1.0 + reach)
    if padding == "reflection":
        place = _reflected(place, size, corners)
    entries = np.arange(-beyond, size + beyond)
    weights = _kernel(place - place.graph.constant(entries, place.dtype), reach)
    if not beyond:
        return weights
    home = entries.clip(0, size - 1) if padding == "border" else _mirrored(entries, size, corners)
    folded = np.equal.outer(home, np.arange(size))
    return weights.matmul(place.graph.constant(folded, place.dtype))


def _kernel(distance: Term, reach: int) -> Term:
    if reach == 0:
        return step(distance.equals(0.0), distance)
    d = distance.abs()
    if reach == 1:
        return (1.0 - d).relu()
    near = (d * (_CUBIC + 2) - (_CUBIC + 3)) * d * d + 1.0
    far = ((d - 5.0) * d + 8.0) * d * _CUBIC - 4 * _CUBIC
    return (d <= 1.0).where(near, (d < 2.0).where(far, 0.0))


def _cubic_slope(f: Term, entries: Sequence[Term]) -> Term:
    """Return the derivative of the cubic through four entries, `f` (N, ..., 1) past the second."""
    a = _CUBIC
    weights = [
        (f * (3 * a) - 4 * a) * f + a,
        (f * (3 * (a + 2)) - 2 * (a + 3)) * f,
        (f * (-3 * (a + 2)) + 2 * (2 * a + 3)) * f - a,
        (f * (-3 * a) + 2 * a) * f,
    ]
    shape = f.shape or ()
    columns = (weight.reshape((shape[0], 1, *shape[1:-1])) for weight in weights)
    first, *rest = (w * entry for w, entry in zip(columns, entries, strict=True))
    for part in rest:
        first = first + part
    return first


def _reflected(place: Term, size: int, corners: int) -> Term:
    """Return positions folded back into the image, by a triangular wave."""
    low, span = _mirrors(size, corners)
    turns = (place - low) * (1 / (2 * span))
    turn = place - low - turns.same("Floor", turns) * (2 * span)
    return span - (turn - span).abs() + low


def _mirrored(entries: NDArray[np.int64], size: int, corners: int) -> NDArray[np.int64]:
    low, span = _mirrors(size, corners)
    turn = (entries - low) % (2 * span)
    found = np.rint(span - abs(turn - span) + low).clip(0, size - 1)
    return np.asarray(found, np.int64)


def _mirrors(size: int, corners: int) -> tuple[float, float]:
    """Return the position of the lower mirror, and the distance to the upper one."""
    return (0.0, max(size - 1.0, 1e-6)) if corners else (-0.5, float(size))
