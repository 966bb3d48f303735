"""One call of an artifact, the same on every machine."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jataug.artifact import Manifest
from jataug.runtime.task import Task, start_state

__all__ = ["call_of", "steps_of"]

_IMAGES = 2

_STEP = 0.01
"""Of a radius. Updates of a usual length lead iterations astray: what two right runtimes round
differently in the first, the tenth has made into another image.
"""


def call_of(manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Return the inputs of one call: random images from a random start, by input name."""
    count = manifest.batch if isinstance(manifest.batch, int) else _IMAGES
    random = np.random.Generator(np.random.Philox(key=8))
    image = random.random((count, *manifest.image_shape), dtype=np.float32)
    label = np.arange(count, dtype=np.int64) % manifest.classes
    flow, pixel = manifest.config.flow.radius, manifest.config.pixel.radius
    task = Task(
        image,
        label,
        (label + 1) % manifest.classes,
        np.full(count, flow, np.float32),
        np.full(count, pixel, np.float32),
        range(count),
        seed=8,
        epoch=0,
    )
    state = start_state(task, manifest.config.replace(start="random"))
    given: dict[str, Any] = {"image": image, "label": label, "target": task.target}
    given |= {"flow_radius": task.flow_radius, "pixel_radius": task.pixel_radius}
    for branch, size in steps_of(manifest).items():
        given[f"{branch}_step"] = np.full(count, size, np.float32)
    given |= dict(zip(("flow", "delta"), state, strict=True))
    return {name: given[name] for name in manifest.inputs}


def steps_of(manifest: Manifest) -> dict[str, float]:
    """Return what an update moves by, by branch."""
    flow, pixel = manifest.config.flow.radius, manifest.config.pixel.radius
    return {"flow": _STEP * flow, "pixel": _STEP * pixel}
