"""One batch: the inputs of the iterations, and their start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jataug import streams
from jataug.budget import FlowBudget, PixelBudget
from jataug.config import AttackConfig
from jataug.finalize import project
from jataug.streams import Start
from jataug.warp import warp

__all__ = ["Task", "draw_start", "radii_and_steps", "start_state", "with_steps"]

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


def draw_start(task: Task, config: AttackConfig) -> Start:
    """Return where the attack on a batch begins, with what it was drawn for."""
    radii = task.flow_radius, task.pixel_radius
    return Start(*start_state(task, config), list(task.index), task.seed, task.epoch, *radii)


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
