"""One batch: the inputs of the iterations, and their start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from jataug import streams
from jataug.budget import FlowBudget, PixelBudget
from jataug.config import AttackConfig
from jataug.errors import DataError
from jataug.finalize import project
from jataug.warp import warp

from .inputs import padded

__all__ = ["Start", "Task", "radii_and_steps", "start_state", "with_steps"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Task:
    """One batch, padded to the session's batch size."""

    image: Array
    label: Array
    target: Array
    flow_radius: Array
    pixel_radius: Array
    index: Sequence[int]
    seed: int
    epoch: int


@dataclass(frozen=True, eq=False)
class Start:
    """The random start of the attack on a batch.

    Attributes:
        flow: (batch, 2, height, width), pixels; None where the flow branch is off.
        delta: (batch, channel, height, width), image units; None where the pixel branch is off.
        index: the sample indices that it was drawn for.
        seed: the seed that it was drawn for.
        epoch: the epoch that it was drawn for.
        flow_radius: (batch,), pixels; the radii that it was drawn for.
        pixel_radius: (batch,), image units; the radii that it was drawn for.
    """

    flow: Array | None
    delta: Array | None
    index: Sequence[int]
    seed: int
    epoch: int
    flow_radius: Array
    pixel_radius: Array

    @classmethod
    def draw(cls, task: Task, config: AttackConfig) -> Self:
        """Draw the start of a batch."""
        radii = task.flow_radius, task.pixel_radius
        return cls(*start_state(task, config), list(task.index), task.seed, task.epoch, *radii)

    def check(
        self, index: Sequence[int], seed: int, epoch: int, flow_radius: Array, pixel_radius: Array
    ) -> None:
        """Check that the start fits a call. A start of a smaller radius does.

        Raises:
            DataError: it was drawn for other samples, or for a larger radius than the call's.
        """
        if (self.index, self.seed, self.epoch) != (list(index), seed, epoch):
            raise DataError(
                f"start: it was drawn for {len(self.index)} images, seed {self.seed} and epoch "
                f"{self.epoch}, which are not those of this call; draw it for the same indices, "
                "seed and epoch"
            )
        pairs = {
            "flow": (self.flow_radius, flow_radius),
            "pixel": (self.pixel_radius, pixel_radius),
        }
        for branch, (drawn, allowed) in pairs.items():
            if (wrong := drawn > allowed).any():
                at = int(wrong.argmax())
                raise DataError(
                    f"start: it was drawn for a {branch} radius of {drawn[at]:g}, and this call "
                    f"allows {allowed[at]:g} (image {at}); draw it with the {branch} radius of the "
                    "call"
                )

    def part(self, rows: slice, size: int) -> tuple[Array | None, Array | None]:
        """Return the flow and perturbation of some rows, padded with zeros to `size` rows."""
        flow, delta = (
            None if state is None else padded(state[rows], size)
            for state in (self.flow, self.delta)
        )
        return flow, delta


def start_state(task: Task, config: AttackConfig) -> tuple[Array | None, Array | None]:
    """Return the flow and the perturbation to start from; None for a branch that is off."""
    on, shape = config.branches, task.image.shape
    flow = np.zeros((shape[0], 2, *shape[2:]), np.float32) if "flow" in on else None
    delta = np.zeros(shape, np.float32) if "pixel" in on else None
    if config.start == "zero":
        return flow, delta
    if flow is not None:
        flow = project(_drawn_flow(task, flow, config), task.flow_radius, config.flow.norm, (1,))
    if delta is not None:
        delta = project(_drawn_delta(task, delta, config), task.pixel_radius, config.pixel.norm)
        base = task.image
        if flow is not None and config.composition == "spatial-pixel":
            base = warp(task.image, flow)
        delta = np.clip(base + delta, 0, 1) - base
    return flow, delta


def _drawn_flow(task: Task, flow: Array, config: AttackConfig) -> Array:
    for row, index in enumerate(task.index):
        budget = FlowBudget(float(task.flow_radius[row]), config.flow.norm)
        size = (flow.shape[2], flow.shape[3])
        flow[row] = streams.flow_start(task.seed, index, size, budget, epoch=task.epoch)
    return flow


def _drawn_delta(task: Task, delta: Array, config: AttackConfig) -> Array:
    for row, index in enumerate(task.index):
        budget = PixelBudget(float(task.pixel_radius[row]), config.pixel.norm)
        size = (delta.shape[1], delta.shape[2], delta.shape[3])
        delta[row] = streams.pixel_start(task.seed, index, size, budget, epoch=task.epoch)
    return delta


def radii_and_steps(task: Task, config: AttackConfig, steps: int) -> Mapping[str, Array]:
    """Return the radii and step sizes by input name: (batch,) each."""
    return with_steps(task.flow_radius, task.pixel_radius, config, steps)


def with_steps(flow: Array, pixel: Array, config: AttackConfig, steps: int) -> Mapping[str, Array]:
    """Return radii and the matching step sizes by input name: (batch,) each."""
    pairs = zip(flow, pixel, strict=True)
    sizes = [config.step_sizes(float(f), float(p), steps) for f, p in pairs]
    taken = np.array(sizes, np.float32).reshape(-1, 2)
    return {
        "flow_radius": flow,
        "pixel_radius": pixel,
        "flow_step": taken[:, 0],
        "pixel_step": taken[:, 1],
    }
