"""Small graphs and artifacts for the tests: what is built is run, and compared as arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from jataug import AttackConfig
from jataug.artifact import Manifest
from jataug.export.build import build_attack
from jataug.export.graph.builder import Graph, Term, as_model
from jataug.export.model.load import load_model, prepare
from jataug.preprocessing import Preprocessing

from .checking import on_runtime

__all__ = ["artifact", "compute", "network", "one_call", "start"]


def compute(
    make: Callable[..., Term], run: Any = on_runtime, batch: str | int = "N", **arrays: np.ndarray
) -> np.ndarray:
    """Return the value of the term that `make` builds from terms for `arrays`."""
    graph = Graph()
    terms = {n: graph.input(n, a.dtype, (batch, *a.shape[1:])) for n, a in arrays.items()}
    outputs = {"result": make(**terms)}
    finished = graph.finish(terms.values(), outputs, "test", opsets={"": 18})
    model = as_model(finished)
    onnx.checker.check_model(model, full_check=True)
    kept = {value.name for value in model.graph.input}
    return run(model, {name: array for name, array in arrays.items() if name in kept})[0]


def network(path: Any, preprocessing: Preprocessing | None = None) -> Any:
    """Return the classifier in a file, folded, as export_attack prepares it."""
    return prepare(load_model(path), preprocessing=preprocessing or Preprocessing())


def artifact(
    path: Any, config: AttackConfig, form: Any = "step", **options: Any
) -> tuple[onnx.ModelProto, Manifest]:
    """Return the artifact of a classifier and its manifest."""
    return build_attack(network(path), config, Preprocessing(), form, **options)


def start(manifest: Manifest, size: int, seed: int = 0) -> dict[str, Any]:
    """Return inputs for one call: random images, labels, targets, and a state well inside its
    budgets.
    """
    random = np.random.default_rng(seed)
    channel, height, width = manifest.image_shape
    config, classes = manifest.config, manifest.classes
    label = random.integers(0, classes, size)
    flow = random.uniform(-0.5, 0.5, (size, 2, height, width)) * config.flow.radius
    image = random.uniform(0, 1, (size, channel, height, width))
    delta = random.uniform(-0.5, 0.5, image.shape) * min(config.pixel.radius, 0.1)
    flow_step, pixel_step = config.step_sizes(config.flow.radius, config.pixel.radius, config.steps)
    numbers = {
        "flow_radius": config.flow.radius,
        "pixel_radius": config.pixel.radius,
        "flow_step": flow_step,
        "pixel_step": pixel_step,
    }
    feeds = {
        "image": image.astype(np.float32),
        "label": label,
        "target": (label + random.integers(1, classes, size)) % classes,
        "flow": flow.astype(np.float32),
        "delta": delta.astype(np.float32),
        **{name: np.full(size, value, np.float32) for name, value in numbers.items()},
    }
    return {name: feeds[name] for name in manifest.inputs}


def one_call(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the outputs of one call, by name."""
    names = [value.name for value in model.graph.output]
    return dict(zip(names, on_runtime(model, feeds), strict=True))
