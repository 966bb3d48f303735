"""The backward bilinear warp as a graph, and its two hand-written derivatives (docs/method.md).

The warp is a stencil on the edge-padded image: the sum over i, j in [-R, R] of
shifted(x, i, j) hat(dx - i) hat(dy - j), with hat(u) = max(0, 1 - |u|). It uses only Pad, Slice,
Mul and Add, so it is deterministic, and neither derivative needs a scatter. Above R = 3 the forward
warp and the derivative with respect to the flow use gathers instead.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..graph.builder import Term

__all__ = ["LARGEST_STENCIL", "Warp", "reach_of"]

LARGEST_STENCIL = 3
"""The largest reach R at which the stencil beats gathers."""


def reach_of(max_flow_radius: float) -> int:
    """Return R = floor(radius) + 1, the whole pixels that a flow of this length can reach into."""
    return math.floor(max_flow_radius) + 1


class Warp:
    """T(., flow) for one flow field. The warp and its derivatives share their nodes.

    Args:
        flow: (batch, 2, height, width), pixels, (dx, dy), with |dx|, |dy| below `reach`.
        reach: R of the stencil.
    """

    def __init__(self, flow: Term, reach: int) -> None:
        self.reach, self.flow = reach, flow
        shape = flow.shape or ()
        self.height, self.width = int(shape[2]), int(shape[3])
        self.dx = flow.slice([0], [1], [1])
        self.dy = flow.slice([1], [2], [1])
        self.offsets = range(-reach, reach + 1)
        self._hats: dict[tuple[str, int], Term] = {}
        self._shifted: dict[ir.Value, _Shifted] = {}
        self._warped: dict[ir.Value, Term] = {}

    def _hat(self, axis: str, i: int) -> Term:
        if (axis, i) not in self._hats:
            d = self.dx if axis == "x" else self.dy
            self._hats[axis, i] = (1 - (d - float(i)).abs()).relu()
        return self._hats[axis, i]

    def __call__(self, image: Term) -> Term:
        """Return T(image, flow), in the image's shape. The same image is warped only once."""
        if image.value not in self._warped:
            self._warped[image.value] = self._warp(image)
        return self._warped[image.value]

    def _views(self, image: Term) -> "_Shifted":
        if image.value not in self._shifted:
            self._shifted[image.value] = _Shifted(image, self.reach)
        return self._shifted[image.value]

    def _warp(self, image: Term) -> Term:
        if self.reach > LARGEST_STENCIL:
            return _Corners(self, image).mix()
        shifted = self._views(image)
        rows = [
            _total([shifted(i, j) * self._hat("x", i) for i in self.offsets]) for j in self.offsets
        ]
        return _total([row * self._hat("y", j) for row, j in zip(rows, self.offsets, strict=True)])

    def flow_gradient(self, image: Term, cotangent: Term) -> Term:
        """Return the gradient of sum(cotangent * T(image, flow)) with respect to the flow.

        Its shape is (batch, 2, height, width). At whole offsets it is the right-sided derivative.
        Beyond the border it is 0, and on the border it points inward.
        """
        if self.reach > LARGEST_STENCIL:
            slopes = _Corners(self, image).slopes()
        else:
            shifted = self._views(image)
            slopes = self._slope(shifted, "x"), self._slope(shifted, "y")
        # Pixels are subtracted before the cotangent multiplies them. In the other order, constant
        # regions give rounding noise, which the gradient's sign would turn into full steps.
        parts = [(cotangent * slope).sum([1]) for slope in slopes]
        shape = (*(parts[0].shape or ())[:1], 2, self.height, self.width)
        return parts[0].graph.op("Concat", *parts, dtype=parts[0].dtype, shape=shape, axis=1)

    def _slope(self, shifted: "_Shifted", axis: str) -> Term:
        d, size = (self.dx, self.width) if axis == "x" else (self.dy, self.height)
        across = "y" if axis == "x" else "x"
        terms = []
        for i in self.offsets[:-1]:
            inside = self._inside(d, i, size, axis)
            differences = []
            for j in self.offsets:
                near, far = ((i, j), (i + 1, j)) if axis == "x" else ((j, i), (j, i + 1))
                differences.append((shifted(*far) - shifted(*near)) * self._hat(across, j))
            terms.append(_total(differences) * inside)
        return _total(terms)

    def _inside(self, d: Term, i: int, size: int, axis: str) -> Term:
        """Return where i <= d < i + 1. The last cell before the far border includes d = i + 1."""
        assert d.dtype is not None
        place = np.arange(size) + i
        upper = np.full(size, i + 1, d.dtype)
        upper[place == size - 2] = np.nextafter(d.dtype.type(i + 1), d.dtype.type(np.inf))
        row = upper.reshape((1, 1, 1, -1) if axis == "x" else (1, 1, -1, 1))
        return ((d >= float(i)) & (d < d.graph.constant(row))).cast(d.dtype)

    def image_gradient(self, cotangent: Term) -> Term:
        """Return the gradient of sum(cotangent * T(image, flow)) with respect to the image.

        It is the exact adjoint of the stencil, in the image's shape.
        """
        rows = []
        for j in self.offsets:
            weighted = cotangent * self._hat("y", j)
            columns = [self._shift_back(weighted * self._hat("x", i), i, 3) for i in self.offsets]
            rows.append(self._shift_back(_total(columns), j, 2))
        return _fold_border(_fold_border(_total(rows), self.reach, 3), self.reach, 2)

    def _shift_back(self, term: Term, offset: int, axis: int) -> Term:
        before, after = [0] * 4, [0] * 4
        before[axis], after[axis] = self.reach + offset, self.reach - offset
        return term.pad(before, after)


def _fold_border(padded: Term, reach: int, axis: int) -> Term:
    """Return the adjoint of edge padding: each padded entry is added to the border it repeats."""
    full = int((padded.shape or ())[axis])
    first, last = reach, full - reach
    inner = padded.slice([first], [last], [axis])
    low = padded.slice([0], [first], [axis]).sum([axis])
    high = padded.slice([last], [full], [axis]).sum([axis])
    size = last - first
    before, after = [0] * 4, [0] * 4
    before[axis] = after[axis] = size - 1
    zeros = [0] * 4
    return inner + low.pad(zeros, after) + high.pad(before, zeros)


class _Shifted:
    """Views of the edge-padded image: shifted(i, j)(p) = x(p + (i, j)), coordinates clamped."""

    def __init__(self, image: Term, reach: int) -> None:
        self.reach = reach
        shape = image.shape or ()
        self.height, self.width = int(shape[2]), int(shape[3])
        border = [0, 0, reach, reach]
        self.padded = image.pad(border, border, mode="edge")
        self._views: dict[tuple[int, int], Term] = {}

    def __call__(self, i: int, j: int) -> Term:
        if (i, j) not in self._views:
            top, left = self.reach + j, self.reach + i
            ends = [top + self.height, left + self.width]
            self._views[i, j] = self.padded.slice([top, left], ends, [2, 3])
        return self._views[i, j]


class _Corners:
    """The four pixels around p + w(p), read by gathers. Floor and fraction come from w alone."""

    def __init__(self, warp: Warp, image: Term) -> None:
        self.image = image
        shape = image.shape or ()
        self.batch, self.channel = shape[0], int(shape[1])
        self.height, self.width = int(shape[2]), int(shape[3])
        column, row = np.arange(self.width), np.arange(self.height)
        x, self.fx = _split(warp.dx, column.reshape(1, 1, 1, -1), self.width)
        y, self.fy = _split(warp.dy, row.reshape(1, 1, -1, 1), self.height)
        self.pixels = {
            (i, j): self._gather(_place(x, i, self.width), _place(y, j, self.height))
            for i in (0, 1)
            for j in (0, 1)
        }

    def _gather(self, x: Term, y: Term) -> Term:
        count = self.height * self.width
        flat = self.image.reshape((self.batch, self.channel, count))
        index = (y * float(self.width) + x).cast(np.int64).reshape((self.batch, 1, count))
        index = index.expand((self.batch, self.channel, count))
        taken = flat.same("GatherElements", flat, index, axis=2)
        return taken.reshape(self.image.shape or ())

    def mix(self) -> Term:
        top, bottom = (self._along_x(j) for j in (0, 1))
        return top * (1 - self.fy) + bottom * self.fy

    def _along_x(self, j: int) -> Term:
        return self.pixels[0, j] * (1 - self.fx) + self.pixels[1, j] * self.fx

    def slopes(self) -> tuple[Term, Term]:
        p = self.pixels
        by_x = (p[1, 0] - p[0, 0]) * (1 - self.fy) + (p[1, 1] - p[0, 1]) * self.fy
        by_y = (p[0, 1] - p[0, 0]) * (1 - self.fx) + (p[1, 1] - p[1, 0]) * self.fx
        return by_x, by_y


def _split(
    d: Term, place: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]", size: int
) -> tuple[Term, Term]:
    """Return the coordinate of the near pixel, and the fraction.

    On the far border they are those of the last cell inside the image.
    """
    assert d.dtype is not None
    at = d.graph.constant(place.astype(d.dtype))
    near = d.same("Floor", d)
    if size > 1:
        on_border = ((at + near).equals(float(size - 1)) & near.equals(d)).cast(d.dtype)
        near = near - on_border
    return at + near, d - near


def _place(near: Term, i: int, size: int) -> Term:
    return (near + float(i)).maximum(0.0).minimum(float(size - 1))


def _total(terms: Sequence[Term]) -> Term:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
