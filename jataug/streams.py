"""Random starts and targets, which depend on (seed, epoch, sample index) alone.

Every draw reads 64-bit words of Philox4x64-10 (Salmon et al., SC 2011) with key = (seed, sample
index) and counter = (block, tensor, restart, epoch), where block counts 1, 2, 3, ... and each block
gives four words. A word maps to a float64 in [0, 1) as u = (word >> 11) * 2**-53. docs/streams.md
holds the specification and its test vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .budget import FlowBudget, PixelBudget
from .errors import BudgetError, DataError

__all__ = [
    "FLOW",
    "MIX",
    "PIXEL",
    "TARGET",
    "Start",
    "check_key",
    "flow_start",
    "pixel_start",
    "target_labels",
    "words",
]

FLOW, PIXEL, TARGET, MIX = 1, 2, 3, 4
"""Tensor ids: the third word of the counter."""

_WORD = 2**64


def words(
    seed: int, index: int, tensor: int, count: int, *, epoch: int = 0, restart: int = 0
) -> NDArray[np.uint64]:
    """Return the first `count` words of one stream: (count,), uint64.

    Raises:
        BudgetError: a number does not fit an unsigned 64-bit word.
    """
    check_key(seed=seed, index=index, epoch=epoch, restart=restart)
    key = np.array([seed, index], np.uint64)
    counter = np.array([0, tensor, restart, epoch], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def check_key(**numbers: Any) -> None:
    """Check that numbers can identify a stream.

    Raises:
        BudgetError: a number does not fit an unsigned 64-bit word.
    """
    for name, value in numbers.items():
        if not hasattr(value, "__index__") or not 0 <= value < _WORD:
            raise BudgetError(f"{name}: expected an integer in [0, 2**64), got {value!r}")


def _uniform(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def flow_start(
    seed: int, index: int, size: tuple[int, int], budget: FlowBudget, **counter: int
) -> NDArray[np.float32]:
    """Return one uniform flow field in the budget: (2, height, width), pixels, (dx, dy).

    l2: radius sqrt(u0) (cos 2 pi u1, sin 2 pi u1), with u0 the first half of the words and u1 the
        second; linf: radius (2 u - 1).
    """
    u = _uniform(words(seed, index, FLOW, 2 * size[0] * size[1], **counter)).reshape(2, *size)
    if budget.norm == "linf":
        return (budget.radius * (2 * u - 1)).astype(np.float32)
    length, angle = budget.radius * np.sqrt(u[0]), 2 * np.pi * u[1]
    return np.stack([length * np.cos(angle), length * np.sin(angle)]).astype(np.float32)


def pixel_start(
    seed: int, index: int, shape: tuple[int, int, int], budget: PixelBudget, **counter: int
) -> NDArray[np.float32]:
    """Return one uniform perturbation in the budget: (channel, height, width), image units.

    linf: radius (2 u - 1).
    l2: radius u0**(1/n) g / |g|, with n = channel * height * width and u0 the first word. g are n
        normals by Box and Muller, sqrt(-2 log(1 - u1)) cos(2 pi u2), with u1 the next n words and
        u2 the n words after those.
    """
    n = int(np.prod(shape))
    if budget.norm == "linf":
        u = _uniform(words(seed, index, PIXEL, n, **counter))
        return (budget.radius * (2 * u - 1)).reshape(shape).astype(np.float32)
    u = _uniform(words(seed, index, PIXEL, 1 + 2 * n, **counter))
    normal = np.sqrt(-2 * np.log1p(-u[1 : n + 1])) * np.cos(2 * np.pi * u[n + 1 :])
    length = budget.radius * u[0] ** (1 / n)
    start: NDArray[np.float64] = length * normal / np.linalg.norm(normal)
    return start.reshape(shape).astype(np.float32)


def target_labels(
    seed: int, indices: Any, labels: Any, classes: int, *, iteration: int = 0, **counter: int
) -> NDArray[np.int64]:
    """Return labels drawn uniformly from the classes - 1 labels other than the true ones: (batch,),
    int64.

    t = (y + 1 + floor(u (classes - 1))) mod classes, with u from word number `iteration` of each
    sample's stream.
    """
    raw = [words(seed, int(i), TARGET, iteration + 1, **counter)[-1] for i in indices]
    offset = np.floor(_uniform(np.array(raw, np.uint64)) * (classes - 1)).astype(np.int64)
    return (np.asarray(labels, np.int64) + 1 + offset) % classes


@dataclass(frozen=True, eq=False)
class Start:
    """Where the attack on a batch begins; `Session.draw` makes one. None for a branch that is off.

    Attributes:
        flow: (batch, 2, height, width), pixels.
        delta: (batch, channel, height, width), image units.
        index: sample indices that it was drawn for.
        seed: likewise.
        epoch: likewise.
        flow_radius: (batch,), likewise; pixels.
        pixel_radius: (batch,), likewise; image units.
    """

    flow: NDArray[Any] | None
    delta: NDArray[Any] | None
    index: Sequence[int]
    seed: int
    epoch: int
    flow_radius: NDArray[Any]
    pixel_radius: NDArray[Any]

    def check(
        self,
        shape: Sequence[int],
        branches: Sequence[str],
        index: Sequence[int],
        seed: int,
        epoch: int,
        flow_radius: NDArray[Any],
        pixel_radius: NDArray[Any],
    ) -> None:
        """Check that this start fits an attack.

        Args:
            shape: (batch, channel, height, width) of the images.
            branches: of the attack.
            index: sample indices.
            seed: see `index`.
            epoch: see `index`.
            flow_radius: (batch,); a start of a smaller radius is inside.
            pixel_radius: likewise.

        Raises:
            DataError: it was drawn for other samples, images of another size, another branch, or a
                larger radius than this call's.
        """
        if (self.index, self.seed, self.epoch) != (list(index), seed, epoch):
            raise DataError(
                f"start: it was drawn for {len(self.index)} images, seed {self.seed} and epoch "
                f"{self.epoch}, which are not those of this call; draw it for the same indices, "
                "seed and epoch"
            )
        count, channel, height, width = shape
        wanted = {"flow": (count, 2, height, width), "pixel": (count, channel, height, width)}
        for branch, state in (("flow", self.flow), ("pixel", self.delta)):
            if branch in branches and (state is None or state.shape != wanted[branch]):
                got = "none" if state is None else state.shape
                raise DataError(
                    f"start: expected a {branch} start {wanted[branch]}, got {got}; draw it with a "
                    "session of the same attack and image size"
                )
        radii = {
            "flow": (self.flow_radius, flow_radius),
            "pixel": (self.pixel_radius, pixel_radius),
        }
        for branch, (drawn, allowed) in radii.items():
            if (wrong := drawn > allowed).any():
                at = int(wrong.argmax())
                raise DataError(
                    f"start: it was drawn for a {branch} radius of {drawn[at]:g}, and this call "
                    f"allows {allowed[at]:g} (image {at}); draw it with the {branch} radius of the "
                    "call"
                )

    def part(self, rows: slice, size: int) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        """Return flow and perturbation of some rows, padded with zeros to `size`."""
        flow, delta = (
            None if state is None else _padded(state[rows], size)
            for state in (self.flow, self.delta)
        )
        return flow, delta


def _padded(state: NDArray[Any], size: int) -> NDArray[Any]:
    return np.pad(state, [(0, size - len(state)), *[(0, 0)] * (state.ndim - 1)])
