"""Runs the iterations of an artifact. Its state stays on the device, in two sets of buffers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jataug.artifact import Manifest

from .backends import Engine
from .task import Task

__all__ = ["Stepper"]

Array = NDArray[Any]


class Stepper:
    """One artifact at one batch size, with its input buffers and the best iterate so far.

    Args:
        engine: the compiled artifact.
        manifest: gives names and shapes.
        size: the batch size.
    """

    def __init__(self, engine: Engine, manifest: Manifest, size: int) -> None:
        self._engine = engine
        channel, height, width = manifest.image_shape
        image = (size, channel, height, width)
        shapes = {"image": image, "delta": image, "flow": (size, 2, height, width)}
        self._states: list[str] = [n for n in ("flow", "delta") if n in manifest.inputs]
        self._inputs = {
            name: engine.empty(name, shapes.get(name, (size,)))
            for name in manifest.inputs
            if name not in self._states
        }
        self._buffers = [
            {name: engine.empty(name, shapes[name]) for name in self._states} for _ in range(2)
        ]
        self._reports = {
            "adversarial": engine.empty("adversarial", image),
            "loss": engine.empty("loss", (size,)),
            "logits": engine.empty("logits", (size, manifest.classes)),
        }
        self._bindings = [
            engine.bind({**self._inputs, **before}, {**_named_next(after), **self._reports})
            for before, after in (self._buffers, self._buffers[::-1])
        ]
        self._turn = 0
        config = manifest.config
        self._keeps_best = config.keep == "best" and manifest.form == "step"
        self._ranks_reported = config.ranked_objective == config.reported_objective
        self._best: dict[str, Array] | None = None
        self._label = np.zeros(size, np.int64)

    def load(self, task: Task, numbers: Mapping[str, Array]) -> None:
        """Copy a batch, and its radii and step sizes by input name, to the device."""
        self._label = task.label
        values = {"image": task.image, "label": task.label, "target": task.target, **numbers}
        for name, buffer in self._inputs.items():
            buffer.update_inplace(np.ascontiguousarray(values[name]))

    def retarget(self, target: Array) -> None:
        """Replace the targets."""
        self._inputs["target"].update_inplace(target)

    def start(self, flow: Array | None, delta: Array | None) -> None:
        """Set the state."""
        self._turn, self._best = 0, None
        for name, array in (("flow", flow), ("delta", delta)):
            if name in self._states and array is not None:
                self._buffers[0][name].update_inplace(np.ascontiguousarray(array))

    def iterate(self) -> None:
        """Run one call of the artifact."""
        self._engine.run_bound(self._bindings[self._turn])
        if self._keeps_best:
            logits, loss = (self._reports[name].numpy() for name in ("logits", "loss"))
            self._consider(logits, loss, self._buffers[self._turn])
        self._turn = 1 - self._turn

    def state(self) -> tuple[Array | None, Array | None]:
        """Return the current flow and perturbation; None for a branch that is off."""
        now = {name: buffer.numpy().copy() for name, buffer in self._buffers[self._turn].items()}
        return now.get("flow"), now.get("delta")

    def best(self, logits: Array, loss: Array) -> tuple[Array | None, Array | None]:
        """Return the best state of each image. `logits` and `loss` are those of the current one."""
        self._consider(logits, loss, self._buffers[self._turn])
        best = self._best or {}
        return best.get("flow"), best.get("delta")

    def _consider(self, logits: Array, loss: Array, state: Mapping[str, Any]) -> None:
        """Keep states that beat the best so far.

        Misclassified images win, then the highest value of the ranked objective. Ties keep the
        earlier state.
        """
        if not self._ranks_reported:
            loss = _cross_entropy(logits, self._label)
        wrong = logits.argmax(axis=1) != self._label
        loss = np.where(np.isfinite(loss) & np.isfinite(logits).all(axis=1), loss, -np.inf)
        wrong &= np.isfinite(loss)
        if self._best is None:
            arrays = {name: buffer.numpy().copy() for name, buffer in state.items()}
            self._best = {**arrays, "wrong": wrong, "loss": loss}
            return
        best = self._best
        better = (wrong & ~best["wrong"]) | ((wrong == best["wrong"]) & (loss > best["loss"]))
        if better.any():
            arrays = {name: buffer.numpy() for name, buffer in state.items()}
            for name, array in (*arrays.items(), ("wrong", wrong), ("loss", loss)):
                best[name][better] = array[better]


def _cross_entropy(logits: Array, label: Array) -> Array:
    with np.errstate(invalid="ignore"):  # logits that are not finite rank below all others
        shifted = logits - logits.max(axis=1, keepdims=True)
        own = shifted[np.arange(len(label)), label]
        found: Array = np.log(np.exp(shifted).sum(axis=1)) - own
    return found


def _named_next(state: Mapping[str, Any]) -> dict[str, Any]:
    # An ONNX graph cannot give an output the name of an input.
    return {f"next_{name}": buffer for name, buffer in state.items()}
