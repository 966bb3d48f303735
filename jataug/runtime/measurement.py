"""Turns the final state of a batch into its result."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jataug.config import AttackConfig
from jataug.finalize import finalize, from_levels, quantize
from jataug.result import AttackResult, finite_rows, success_and_reached

from .task import Task

__all__ = ["finished"]

Array = NDArray[Any]


def finished(
    task: Task,
    flow: Array | None,
    delta: Array | None,
    config: AttackConfig,
    eight_bit: bool,
    usable: Array,
    measure: Callable[[Array, Array, Array], dict[str, Array]],
) -> AttackResult:
    """Finalise the images, measure exactly the images that are returned, and return the result.

    Args:
        task: the padded batch, with the targets of the last iteration.
        flow: (batch, 2, height, width), pixels, or None where the attack has no flow.
        delta: (batch, channel, height, width), image units, or None where it has no perturbation.
        config: the composition and the norms of the budgets.
        eight_bit: whether the images came as uint8.
        usable: which clean images have finite logits. The others count as failed.
        measure: maps images, labels and targets to "logits" and "loss".
    """
    count = len(task.index)
    radii = task.flow_radius, task.pixel_radius
    exact, warped, half, reported = finalize(task.image, flow, delta, *radii, config)
    levels = quantize(exact, warped, task.pixel_radius) if eight_bit else None
    stored = exact if levels is None else from_levels(levels)
    measured = measure(stored, task.label, task.target)
    failed = ~(finite_rows(measured["logits"]) & usable)
    failed[count:] = False
    if failed.any():
        for array in (exact, stored):
            array[failed] = task.image[failed]
        half[failed], reported[failed] = 0, 0
        if levels is not None:
            clean = np.rint(task.image[failed] * 255).astype(np.uint8)
            levels[failed] = clean.transpose(0, 2, 3, 1)
        measured = measure(stored, task.label, task.target)
    if levels is not None and config.composition == "spatial-pixel":
        reported = np.where(failed.reshape(-1, 1, 1, 1), 0, stored - warped)
    logits = measured["logits"]
    success, reached = success_and_reached(config, logits, task.label, task.target, failed)
    fields = (
        stored if levels is None else levels,
        exact,
        half,
        reported.astype(np.float32),
        measured["loss"],
        logits,
        success,
        task.label,
        task.target,
        failed,
        reached,
    )
    return AttackResult(*(None if field is None else field[:count] for field in fields))
