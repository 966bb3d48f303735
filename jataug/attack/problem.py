"""Reads and checks the arguments of one attack, and moves them to the images' device."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import streams
from ..budget import FlowBudget, PixelBudget, radius_of
from ..config import AttackConfig
from ..errors import BudgetError, DataError, ModelError
from ..result import check_targeted
from .finalize import from_levels
from .projection import Branch
from .render import State

__all__ = ["Draws", "Model", "Problem", "logits_of", "predict", "read"]

Model = Callable[[Tensor], Any]
"""Maps images (batch, channel, height, width), float32 in [0, 1], to logits (batch, classes), or to
an output that holds them; see `logits_of`.
"""


@dataclass(frozen=True)
class Draws:
    """The random streams of a batch. They depend only on seed, epoch and sample index."""

    seed: int
    epoch: int
    indices: Sequence[int]

    def start(
        self, image: Tensor, radius: Sequence[float], budget: FlowBudget | PixelBudget
    ) -> Tensor:
        """Return one uniform start for each image, in the ball of that image's radius."""
        channel, height, width = image.shape[1:]
        starts = [
            streams.flow_start(
                self.seed, index, (height, width), FlowBudget(own, budget.norm), epoch=self.epoch
            )
            if isinstance(budget, FlowBudget)
            else streams.pixel_start(
                self.seed,
                index,
                (channel, height, width),
                PixelBudget(own, budget.norm),
                epoch=self.epoch,
            )
            for index, own in zip(self.indices, radius, strict=True)
        ]
        return torch.from_numpy(np.stack(starts)).to(image.device)

    def target(self, label: Tensor, classes: int, iteration: int = 0) -> Tensor:
        """Return labels other than `label`, uniformly drawn: (batch,), int64."""
        # Its distance from the label does not depend on the label, which can stay on its device.
        distance = streams.target_labels(
            self.seed,
            self.indices,
            np.zeros(len(self.indices), np.int64),
            classes,
            iteration=iteration,
            epoch=self.epoch,
        )
        return (label + torch.from_numpy(distance).to(label.device)) % classes


@dataclass(frozen=True)
class Problem:
    """A batch to attack, with its budgets; `radius` and `step` are (batch,) for each branch.

    `levels` are the original images if they were 8-bit levels. `drawn` are the starts before
    projection. `given` is true if the caller chose the targets, which are then never redrawn.
    `clean` are the logits of the images, if they are already computed.
    """

    model: Model
    config: AttackConfig
    image: Tensor
    levels: Tensor | None
    label: Tensor
    target: Tensor
    given: bool
    classes: int
    radius: dict[Branch, Tensor]
    step: dict[Branch, Tensor]
    drawn: State
    draws: Draws
    clean: Tensor | None = None

    def for_iteration(self, iteration: int) -> "Problem":
        """Return the problem of an iteration: the same, or with redrawn targets."""
        if not self.config.redraw_targets or self.given or iteration == 0:
            return self
        return replace(self, target=self.draws.target(self.label, self.classes, iteration))


def logits_of(output: Any) -> Any:
    """Return the entry or attribute `logits` of a model's output, or the output itself.

    Classifiers of transformers return such outputs.
    """
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return getattr(output, "logits", output)


def predict(model: Model, image: Tensor) -> Tensor:
    """Return the logits of `image`: (batch, classes), float32.

    For an empty batch the model is called with one black image, to learn the number of classes.

    Raises:
        ModelError: the model does not return logits, or returns fewer than two classes.
    """
    if not len(image):
        return predict(model, image.new_zeros(1, *image.shape[1:]))[:0]
    logits = logits_of(model(image))
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"model: expected a tensor of logits, got {_kind(logits)}; wrap the model in a "
            "function that returns the logits alone"
        )
    if not logits.is_floating_point():
        raise ModelError(f"model: expected a floating tensor of logits, got {_kind(logits)}")
    if logits.ndim != 2 or logits.shape[0] != image.shape[0] or logits.shape[1] < 2:
        raise ModelError(
            f"model: expected logits ({image.shape[0]}, classes >= 2), got {tuple(logits.shape)}"
        )
    return logits.float()


def read(
    model: Model,
    config: AttackConfig,
    images: Tensor,
    labels: Any,
    indices: Any,
    targets: Any,
    radius: dict[Branch, Any],
    *,
    seed: int,
    epoch: int,
) -> Problem:
    """Return the problem for the arguments of `JointAttack.__call__`, after checking them."""
    image = _images(images)
    count = image.shape[0]
    draws = Draws(seed, epoch, _indices(indices, count))
    logits = predict(model, image if labels is None else image[:1])
    classes = logits.shape[1]
    label = logits.argmax(1) if labels is None else _classes(labels, "labels", image, classes)
    if targets is None:
        target = draws.target(label, classes)
    else:
        check_targeted(config)
        target = _classes(targets, "targets", image, classes)
        same = (target == label).tolist()
        if any(same):
            raise DataError(
                f"targets: expected another label than the true one at position {same.index(True)}"
            )

    budgets: dict[Branch, FlowBudget | PixelBudget] = {"flow": config.flow, "pixel": config.pixel}
    radii = {branch: _radii(radius[branch], budgets[branch], count, branch) for branch in budgets}
    sizes = [
        config.step_sizes(flow, pixel, config.steps)
        for flow, pixel in zip(radii["flow"], radii["pixel"], strict=True)
    ]
    steps = image.new_tensor(sizes).view(-1, 2)
    return Problem(
        model=model,
        config=config,
        image=image,
        levels=images if images.dtype == torch.uint8 else None,
        label=label,
        target=target,
        given=targets is not None,
        classes=classes,
        radius={branch: image.new_tensor(radii[branch]) for branch in budgets},
        step={"flow": steps[:, 0].contiguous(), "pixel": steps[:, 1].contiguous()},
        drawn={
            branch: draws.start(image, radii[branch], budgets[branch])
            for branch in config.branches
            if config.start == "random" and count
        },
        draws=draws,
        clean=logits if labels is None else None,
    )


def _images(images: Tensor) -> Tensor:
    eight_bit = isinstance(images, Tensor) and images.dtype == torch.uint8
    if not eight_bit and not (isinstance(images, Tensor) and images.is_floating_point()):
        raise DataError(f"images: expected a torch tensor, float32 or uint8, got {_kind(images)}")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise DataError(
            "images: expected 4 axes, none but the first of size 0, got the shape "
            f"{tuple(images.shape)}"
        )
    if eight_bit:
        return from_levels(images)
    outside = ~((images >= 0) & (images <= 1)).flatten(1).all(1)
    if outside.any():
        place = int(outside.nonzero()[0])
        raise DataError(f"images: expected finite values in [0, 1], got others at position {place}")
    # The copy keeps results out of the caller's memory, and an inference tensor has no gradient.
    return images.detach().to(torch.float32, copy=True)


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor | np.ndarray | np.generic) else value


def _integers(value: Any, name: str, count: int) -> list[int]:
    entries = _listed(value)
    try:
        integers = [operator.index(entry) for entry in entries]
    except TypeError:
        raise DataError(f"{name}: expected {count} integers, got {_kind(value)}") from None
    if len(integers) != count:
        raise DataError(f"{name}: expected {count} integers, one per image, got {len(integers)}")
    return integers


def _indices(indices: Any, count: int) -> list[int]:
    return list(range(count)) if indices is None else _integers(indices, "indices", count)


def _classes(value: Any, name: str, image: Tensor, classes: int) -> Tensor:
    labels = _integers(value, name, image.shape[0])
    for place, label in enumerate(labels):
        if not 0 <= label < classes:
            raise DataError(
                f"{name}: expected integers in [0, {classes}), got {label} at position {place}"
            )
    return torch.tensor(labels, dtype=torch.int64, device=image.device)


def _radii(value: Any, budget: FlowBudget | PixelBudget, count: int, branch: Branch) -> list[float]:
    entries = _listed(budget.radius if value is None else value)
    if not isinstance(entries, list | tuple):
        entries = [entries] * count
    if len(entries) != count:
        raise BudgetError(
            f"{branch}: expected one radius or {count}, one per image, got {len(entries)}"
        )
    # Rounding to float32 first makes a number, an array and the artifact's input the same radius.
    radii = [float(np.float32(radius_of(entry, f"{branch} radius"))) for entry in entries]
    if budget.radius == 0 and any(radii):
        raise BudgetError(
            f"{branch}: the configuration leaves it out, got {max(radii)} as its radius; give 0, "
            "or use a configuration with this branch"
        )
    return radii


def _kind(value: Any) -> str:
    return str(value.dtype) if hasattr(value, "dtype") else type(value).__name__
