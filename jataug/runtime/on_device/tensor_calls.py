"""Calls on fixed torch tensors on the engine's device. Experimental on CUDA.

The tensors are bound once for each batch size. jataug.runtime.stepper does the same with buffers
of the runtime and numpy.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ...artifact import Manifest
from ...attack.projection import Branch
from ...attack.render import State
from ..backends import Engine
from .shared import settle, value_of

__all__ = ["INPUT", "Meter", "TensorStepper"]

INPUT: dict[Branch, str] = {"flow": "flow", "pixel": "delta"}
"""Branch -> the artifact's name of its state."""

_WHOLE = ("label", "target")


class TensorStepper:
    """The iterations of one artifact at one batch size. Two sets of tensors hold the state in turn.

    All addresses stay the same as long as the stepper lives, as capturing a CUDA graph requires.

    Args:
        engine: the compiled artifact, which nothing else binds.
        manifest: gives names and shapes.
        size: the batch size.
        device: the engine's device.
    """

    def __init__(self, engine: Engine, manifest: Manifest, size: int, device: torch.device) -> None:
        self._engine, self._device = engine, device
        states = [INPUT[branch] for branch in manifest.config.branches]
        self._inputs = _made(
            (n for n in manifest.inputs if n not in states), manifest, size, device
        )
        self._states = [_made(states, manifest, size, device) for _ in range(2)]
        self._reports = _made(("adversarial", "loss", "logits"), manifest, size, device)
        self._bindings = [
            _bound(
                engine,
                {**self._inputs, **before},
                # An ONNX graph cannot give an output the name of an input.
                {**{f"next_{name}": tensor for name, tensor in after.items()}, **self._reports},
            )
            for before, after in (self._states, self._states[::-1])
        ]
        self._turn = self._count = 0

    def load(self, values: Mapping[str, Tensor], state: State) -> None:
        """Copy a batch, by input name, and its start into the tensors."""
        self._turn, self._count = 0, len(values["image"])
        for name, tensor in self._inputs.items():
            _fill(tensor, values[name], name)
        for branch, value in state.items():
            _fill(self._states[0][INPUT[branch]], value, branch)

    def retarget(self, target: Tensor) -> None:
        """Replace the targets."""
        _fill(self._inputs["target"], target, "target")

    def iterate(self) -> tuple[Tensor, Tensor]:
        """Run one call of the artifact; return logits and loss of the state before it.

        The next call overwrites them.
        """
        settle(self._device)
        self._engine.run_bound(self._bindings[self._turn])
        self._turn = 1 - self._turn
        logits, loss = (self._reports[name][: self._count] for name in ("logits", "loss"))
        return logits, loss

    def state(self, before: bool = False) -> State:
        """Return the current state, or the state `before` the last call.

        The next call overwrites it.
        """
        held = self._states[1 - self._turn if before else self._turn]
        names: dict[str, Branch] = {name: branch for branch, name in INPUT.items()}
        return {names[name]: tensor[: self._count] for name, tensor in held.items()}


class Meter:
    """Computes logits and losses at one batch size, on one set of tensors.

    Args:
        engine: the artifact, pruned to "loss" and "logits".
        manifest: gives names and shapes.
        size: the batch size.
        device: the engine's device.
    """

    def __init__(self, engine: Engine, manifest: Manifest, size: int, device: torch.device) -> None:
        self._engine, self._device = engine, device
        self._inputs = _made(engine.inputs, manifest, size, device)
        self._reports = _made(engine.outputs, manifest, size, device)
        self._binding = _bound(engine, self._inputs, self._reports)

    def __call__(
        self,
        image: Tensor,
        label: Tensor | None = None,
        target: Tensor | None = None,
        state: State | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return logits (batch, classes) and losses (batch,) of at most `size` images.

        The loss needs label and target.
        """
        given = {"image": image, "label": label, "target": target}
        given |= {INPUT[branch]: value for branch, value in (state or {}).items()}
        for name, tensor in self._inputs.items():
            if (value := given.get(name)) is None:
                tensor.zero_()
            else:
                _fill(tensor, value, name)
        settle(self._device)
        self._engine.run_bound(self._binding)
        logits, loss = (self._reports[name][: len(image)].clone() for name in ("logits", "loss"))
        return logits, loss


def _made(
    names: Iterable[str], manifest: Manifest, size: int, device: torch.device
) -> dict[str, Tensor]:
    channel, height, width = manifest.image_shape
    image = (size, channel, height, width)
    shapes: dict[str, tuple[int, ...]] = {
        "image": image,
        "delta": image,
        "adversarial": image,
        "flow": (size, 2, height, width),
        "logits": (size, manifest.classes),
    }
    return {
        name: torch.zeros(
            shapes.get(name, (size,)),
            dtype=torch.int64 if name in _WHOLE else torch.float32,
            device=device,
        )
        for name in names
    }


def _bound(engine: Engine, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> object:
    return engine.bind(
        {name: value_of(tensor) for name, tensor in inputs.items()},
        {name: value_of(tensor) for name, tensor in outputs.items()},
    )


def _fill(tensor: Tensor, rows: Tensor, name: str) -> None:
    tensor[: len(rows)].copy_(rows)
    # A target differs from the label, in the padding too.
    tensor[len(rows) :].fill_(1 if name == "target" else 0)
