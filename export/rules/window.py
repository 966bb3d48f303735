"""Sliding windows: the geometry that Conv and pools share, and the adjoint of slicing windows."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jataug.errors import UnsupportedOperator

from ..graph.builder import Term

__all__ = ["Window", "scatter", "window"]


@dataclass(frozen=True)
class Window:
    """The static geometry of a sliding window, with one entry per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    """Padding at the start of each axis. Padding at the end follows from the sizes."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """The size of one window, dilation included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def covered(self) -> tuple[int, ...]:
        """The size that all windows together cover, from the first padded entry."""
        sizes = zip(self.outputs, self.strides, self.extent, strict=True)
        return tuple((o - 1) * s + e for o, s, e in sizes)

    @property
    def after(self) -> tuple[int, ...]:
        """The padding at the end that the last window reaches; negative if it ends in the input."""
        sizes = zip(self.covered, self.before, self.inputs, strict=True)
        return tuple(c - b - i for c, b, i in sizes)

    @property
    def offsets(self) -> list[tuple[int, ...]]:
        """The offset of each entry from the window's first entry, in scan order."""
        axes = zip(self.kernel, self.dilations, strict=True)
        return list(itertools.product(*(range(0, k * d, d) for k, d in axes)))


def window(
    X: Term,
    Y: Term,
    kernel: Sequence[int],
    auto_pad: str,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> Window:
    """Return the geometry of a Conv or pool from its attributes and the static sizes of X and Y.

    Raises:
        UnsupportedOperator: a spatial size is symbolic.
    """
    sizes, results = (X.shape or ())[2:], (Y.shape or ())[2:]
    if not all(isinstance(size, int) for size in (*sizes, *results)) or not sizes:
        raise UnsupportedOperator(
            f"{X.value.name} has the shape {X.shape}, and its height and width must be known at "
            "export; fix them in the model"
        )
    rank = len(sizes)
    d, s = tuple(dilations or [1] * rank), tuple(strides or [1] * rank)
    before = tuple(pads[:rank]) if pads else (0,) * rank
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        spans = zip(kernel, d, s, sizes, results, strict=True)
        total = [max((int(o) - 1) * t + (k - 1) * e + 1 - int(i), 0) for k, e, t, i, o in spans]
        before = tuple((t + (auto_pad == "SAME_LOWER")) // 2 for t in total)
    inputs, outputs = tuple(map(int, sizes)), tuple(map(int, results))
    return Window(tuple(kernel), s, d, before, inputs, outputs)


def scatter(parts: Mapping[tuple[int, ...], Term], geometry: Window, X: Term) -> Term:
    """Return the adjoint of slicing: part[o] is added at o * stride + offset - padding.

    It uses no scatter op. Parts whose offsets agree modulo the stride are shifted and added, and
    the residues are interleaved.
    """
    strides = geometry.strides
    reach = [max(o[i] for o in parts) // s for i, s in enumerate(strides)]
    residues: dict[tuple[int, ...], Term] = {}
    for offset, part in parts.items():
        shift = [o // s for o, s in zip(offset, strides, strict=True)]
        moved = part.pad(
            [0, 0, *shift], [0, 0, *(r - m for r, m in zip(reach, shift, strict=True))]
        )
        residue = tuple(o % s for o, s in zip(offset, strides, strict=True))
        residues[residue] = residues[residue] + moved if residue in residues else moved
    return _crop(_interleave(residues, strides), geometry, X)


def _interleave(residues: Mapping[tuple[int, ...], Term], strides: Sequence[int]) -> Term:
    some = next(iter(residues.values()))
    count, rank = int(np.prod(strides)), len(strides)
    if count == 1:
        return some
    shape = some.shape or ()
    zero = some * 0.0 if len(residues) < count else some
    order = itertools.product(*(range(s) for s in strides))
    stack = some.graph.op(
        "Concat",
        *(residues.get(residue, zero) for residue in order),
        dtype=some.dtype,
        shape=(shape[0], count * int(shape[1]), *shape[2:]),
        axis=1,
    )
    sizes = tuple(int(size) * s for size, s in zip(shape[2:], strides, strict=True))
    # On ONNX Runtime this is twice as fast as the general transpose, and has only these types.
    if rank == 2 and strides[0] == strides[1] and some.dtype in (np.float32, np.float64):
        return some.graph.op(
            "DepthToSpace",
            stack,
            dtype=some.dtype,
            shape=(*shape[:2], *sizes),
            blocksize=int(strides[0]),
            mode="DCR",
        )
    apart = stack.reshape((shape[0], *strides, *shape[1:]))
    perm = [0, 1 + rank]
    for i in range(rank):
        perm += [2 + rank + i, 1 + i]
    return apart.transpose(perm).reshape((*shape[:2], *sizes))


def _crop(padded: Term, geometry: Window, X: Term) -> Term:
    sizes = [int(size) for size in (padded.shape or ())[2:]]
    lack = [
        max(b + i - size, 0)
        for b, i, size in zip(geometry.before, geometry.inputs, sizes, strict=True)
    ]
    full = padded.pad([0] * (2 + len(lack)), [0, 0, *lack])
    ends = [b + i for b, i in zip(geometry.before, geometry.inputs, strict=True)]
    if not any(geometry.before) and ends == [s + e for s, e in zip(sizes, lack, strict=True)]:
        return full
    return full.slice(geometry.before, ends, range(2, 2 + len(ends)))
