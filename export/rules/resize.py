"""Rule of Resize. It is linear along each axis, so its adjoint is a matrix product per axis.

Where the standard leaves a choice, the matrices follow ONNX Runtime. Tests compare them entry by
entry.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jataug.errors import UnsupportedOperator

from ..graph.builder import Term
from .places import along, collect, constant, static
from .table import rule

__all__ = ["Axis", "nearest_places", "resize_matrix"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Axis:
    """How one axis is resized: from `size` entries to `result`."""

    size: int
    result: int
    scale: float
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic_coeff_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    span: tuple[float, float] = (0.0, 1.0)
    """The cropped part for tf_crop_and_resize, as fractions of the axis."""

    @property
    def is_cut(self) -> bool:
        return self.coordinates == "tf_crop_and_resize"

    def outside(self, place: Array) -> Array:
        """Return which results read beyond the axis; a cropped axis gives a constant there."""
        return np.asarray(self.is_cut & ((place < 0) | (place > self.size - 1)))


def resize_matrix(axis: Axis) -> Array:
    """Return the matrix M (result, size) of y = M x along one axis, for linear and cubic."""
    place = _coordinates(axis)
    if axis.antialias:
        return _antialiased(axis, place)
    inside = ~axis.outside(place)[:, None]
    if axis.mode == "linear":
        hat = 1 - abs(place.clip(0, axis.size - 1)[:, None] - np.arange(axis.size))
        return hat.clip(min=0) * inside
    first = np.floor(place).astype(np.int64)
    entries = first[:, None] + np.arange(-1, 3)
    return _spread(axis, entries, _cubic(axis, place[:, None] - entries)) * inside


def _coordinates(axis: Axis) -> Array:
    """Return the input coordinate of each result, computed in float32 as runtimes do."""
    i, scale, half = (
        np.arange(axis.result, dtype=np.float32),
        np.float32(axis.scale),
        np.float32(0.5),
    )
    size, result = np.float32(axis.size), np.float32(axis.result)
    match axis.coordinates:
        case "half_pixel":
            place = (i + half) / scale - half
        case "pytorch_half_pixel":
            place = (i + half) / scale - half if axis.result > 1 else i * 0
        case "half_pixel_symmetric":
            adjustment = result / (scale * size)
            place = size / 2 * (1 - adjustment) + (i + half) / scale - half
        case "asymmetric":
            place = i / scale
        case "align_corners":
            place = i * (size - 1) / (result - 1) if axis.result > 1 else i * 0
        case "tf_crop_and_resize":
            start, end = (np.float32(bound) for bound in axis.span)
            if axis.result > 1:
                place = start * (size - 1) + i * (end - start) * (size - 1) / (result - 1)
            else:
                place = half * (start + end) * (size - 1) + i
        case other:
            raise UnsupportedOperator(f"Resize: no derivative rule for the coordinates {other!r}")
    return np.asarray(place, np.float32)


def nearest_places(axis: Axis) -> Array | None:
    """Return the entry that each result copies; None if it depends on a runtime's rounding."""
    place = _coordinates(axis)
    near = 1e-5 * (1 + abs(place))
    found = [_rounded(axis, shifted) for shifted in (place - near, place, place + near)]
    doubtful = (found[0] != found[2]) & ~axis.outside(place)
    if axis.is_cut:
        return np.where(axis.outside(place), -1, found[1]) if not doubtful.any() else None
    if doubtful.any() and not _is_exact(axis.scale):
        return None
    return found[1]


def _is_exact(scale: float) -> bool:
    """Return whether the scale is an integer or a power of two, so that quotients are exact."""
    return scale.is_integer() or (scale < 1 and np.frexp(scale)[0] == 0.5)


def _rounded(axis: Axis, place: Array) -> Array:
    rest = place - np.floor(place)
    rounded = {
        "round_prefer_floor": np.floor(place) + (rest > 0.5),
        "round_prefer_ceil": np.floor(place) + (rest >= 0.5),
        "floor": np.floor(place),
        "ceil": np.ceil(place),
    }[axis.rounding]
    return rounded.astype(np.int64).clip(0, axis.size - 1)


def _cubic(axis: Axis, distance: Array) -> Array:
    """Return Keys' kernel."""
    a, d = axis.cubic_coeff_a, abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _antialiased(axis: Axis, place: Array) -> Array:
    """Return the kernel, stretched by the reduction factor as in Pillow."""
    stretch = max(1.0, 1 / axis.scale)
    support = (1 if axis.mode == "linear" else 2) * stretch
    first = np.floor(place + 0.5 - support).min(initial=0).astype(np.int64)
    last = np.ceil(place + 0.5 + support).max(initial=0).astype(np.int64)
    entries = np.broadcast_to(np.arange(first, last + 1), (axis.result, last + 1 - first))
    distance = (entries - place[:, None]) / stretch
    hat = (1 - abs(distance)).clip(min=0)
    return _spread(axis, entries, hat if axis.mode == "linear" else _cubic(axis, distance))


def _spread(axis: Axis, entries: Array, weights: Array) -> Array:
    """Return the weights as a matrix. Weights beyond the border go to the border or are dropped."""
    outside = (entries < 0) | (entries >= axis.size)
    if axis.exclude_outside:
        weights = np.where(outside, 0.0, weights)
    if axis.exclude_outside or axis.antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((axis.result, axis.size))
    rows = np.broadcast_to(np.arange(axis.result)[:, None], entries.shape)
    np.add.at(matrix, (rows, entries.clip(0, axis.size - 1)), weights)
    return matrix


@rule("Resize", "X")
def resize(
    g: Term,
    Y: Term,
    X: Term,
    roi: Term | None = None,
    scales: Term | None = None,
    sizes: Term | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Term:
    cut = coordinate_transformation_mode == "tf_crop_and_resize"
    if X.shape == Y.shape and not cut:
        # ONNX Runtime copies the input, whatever the scales are.
        return g
    rank = len(X.shape or ())
    chosen = [axis % rank for axis in (range(rank) if axes is None else axes)]
    factors = _scales(X, Y, scales, sizes, chosen, keep_aspect_ratio_policy)
    spans = [(0.0, 1.0)] * len(chosen)
    if cut:
        bounds = constant(roi, "Resize", "roi").astype(np.float64)
        spans = [(float(a), float(b)) for a, b in bounds.reshape(2, -1).T]
    for axis, scale, span in zip(chosen, factors, spans, strict=True):
        if scale == 1 and span != (0.0, 1.0):
            raise UnsupportedOperator(
                "Resize: cropping at a scale of 1 has two readings: the standard resizes the crop, "
                "and ONNX Runtime copies the whole axis"
            )
        if scale == 1:
            continue
        along_axis = Axis(
            static(X, axis, "Resize"),
            static(Y, axis, "Resize"),
            scale,
            mode,
            coordinate_transformation_mode,
            nearest_mode,
            cubic_coeff_a,
            bool(exclude_outside),
            bool(antialias),
            span,
        )
        if mode != "nearest":
            g = along(g, resize_matrix(along_axis), axis)
        elif (places := nearest_places(along_axis)) is not None:
            g = collect(g, axis, places, along_axis.size)
        else:
            g = _asked(g, along_axis, axis, scales is None)
    return g


def _asked(g: Term, axis: Axis, i: int, by_size: bool) -> Term:
    """Return the entries that the runtime copies, as nodes that resize a ramp.

    The runtime computes them once, when it folds constants.
    """
    graph, rank = g.graph, len(g.shape or ())
    if not by_size and int(np.float32(axis.size) * np.float32(axis.scale)) != axis.result:
        raise UnsupportedOperator(f"Resize: runtimes may disagree on {axis}")
    ramp = np.arange(axis.size).reshape([-1 if k == i else 1 for k in range(rank)])
    target = np.ones(rank, np.int64 if by_size else np.float32)
    target[i] = axis.result if by_size else axis.scale
    box = np.zeros((2, rank))
    box[1], box[:, i] = 1, axis.span
    places = graph.op(
        "Resize",
        graph.constant(ramp, g.dtype),
        graph.constant(box.reshape(-1), g.dtype) if axis.is_cut else None,
        *([None] if by_size else []),
        graph.constant(target),
        dtype=g.dtype,
        shape=tuple(axis.result if k == i else 1 for k in range(rank)),
        coordinate_transformation_mode=axis.coordinates,
        extrapolation_value=-1.0,
        mode="nearest",
        nearest_mode=axis.rounding,
    )
    steps = graph.constant(np.arange(axis.size), g.dtype)
    table = places.reshape((axis.result, 1)).equals(steps).cast(g.dtype)
    last = [k for k in range(rank) if k != i] + [i]
    return g.transpose(last).matmul(table).transpose([int(k) for k in np.argsort(last)])


def _scales(
    X: Term, Y: Term, scales: Term | None, sizes: Term | None, axes: list[int], policy: str
) -> list[float]:
    """Return the factor of each axis; an axis that keeps its size under `sizes` has 1."""
    if scales is not None and scales.shape != (0,):
        return [float(scale) for scale in constant(scales, "Resize", "scales")]
    before, after = X.shape or (), Y.shape or ()
    if policy == "stretch":
        kept = [before[axis] == after[axis] for axis in axes]
        pairs = [(axis, same) for axis, same in zip(axes, kept, strict=True)]
        return [
            1.0 if same else static(Y, axis, "Resize") / static(X, axis, "Resize")
            for axis, same in pairs
        ]
    wanted = constant(sizes, "Resize", "sizes").tolist()
    factors = [size / static(X, axis, "Resize") for size, axis in zip(wanted, axes, strict=True)]
    return [min(factors) if policy == "not_larger" else max(factors)] * len(axes)
