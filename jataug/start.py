"""Where an attack on a batch begins, drawn ahead of it: one type for sessions and JointAttack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

__all__ = ["Start"]

Array = NDArray[Any]


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

    flow: Array | None
    delta: Array | None
    index: Sequence[int]
    seed: int
    epoch: int
    flow_radius: Array
    pixel_radius: Array

    def check(
        self,
        shape: Sequence[int],
        branches: Sequence[str],
        index: Sequence[int],
        seed: int,
        epoch: int,
        flow_radius: Array,
        pixel_radius: Array,
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
                f"start: expected one drawn for the same indices, seed and epoch, got one for "
                f"{len(self.index)} images, seed {self.seed}, epoch {self.epoch}"
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

    def part(self, rows: slice, size: int) -> tuple[Array | None, Array | None]:
        """Return flow and perturbation of some rows, padded with zeros to `size`."""
        flow, delta = (
            None if state is None else _padded(state[rows], size)
            for state in (self.flow, self.delta)
        )
        return flow, delta


def _padded(state: Array, size: int) -> Array:
    return np.pad(state, [(0, size - len(state)), *[(0, 0)] * (state.ndim - 1)])
