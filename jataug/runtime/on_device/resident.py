"""Sessions on arrays that lie on the runtime's device. Experimental on CUDA.

torch and the runtime make the whole attack on that device, and the results stay there.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np

from jataug.artifact import Manifest
from jataug.errors import DataError, MissingExtra
from jataug.result import AttackResult, check_targeted
from jataug.streams import Start

from ..backends import Engine
from ..inputs import Images, as_indices, check_targets
from ..limits import calls_of, radii_of, steps_of
from ..results import joined, no_results
from ..task import with_steps
from .devices import Place, name_of, place_of

try:
    import torch
except ImportError as error:
    raise MissingExtra(
        "images on a CUDA device need torch, which is not installed: pip install 'jataug[torch]', "
        "or give the images on the CPU"
    ) from error

from torch import Tensor

from jataug.attack import joint, noise
from jataug.attack.best_iterate import Candidate, better, judge
from jataug.attack.problem import Draws, Problem
from jataug.attack.projection import Branch
from jataug.attack.render import State

from .foreign import as_tensor, library_of, on_host, read_images, read_labels
from .tensor_calls import INPUT, Meter, TensorStepper

__all__ = ["Compiled", "Resident"]


@dataclass(frozen=True)
class Compiled:
    """Functions that compile the engines of a session for a batch size.

    Attributes:
        step: compiles the artifact; each call makes a new engine.
        network: compiles the network, pruned to loss and logits.
        size: maps the number of images of a call to the batch size.
        number: the number of the session's device.
    """

    step: Callable[[int], Engine]
    network: Callable[[int], Engine]
    size: Callable[[int], int]
    number: int


class Resident:
    """A session whose images and results are arrays on the device of its engines.

    Nothing large is copied between host and device. Given labels, targets, radii and step sizes,
    (batch,) each, come from the host. Two booleans go there: whether the images are in [0, 1], and
    whether any logits are not finite.

    Args:
        manifest: the artifact's manifest.
        compiled: compiles its engines.
    """

    def __init__(self, manifest: Manifest, compiled: Compiled) -> None:
        self._manifest, self._compiled = manifest, compiled
        self._meter: Meter | None = None
        self._stepper: TensorStepper | None = None

    def predict(self, images: Any) -> Any:
        """Return the logits as Session.predict does, in the images' library and on their device.

        Raises:
            DataError: see Session.predict; or the images are on another device than the session.
        """
        back = library_of(images)
        with torch.inference_mode(False), torch.no_grad():
            pixels, _ = self._read(images)
            return back(self._logits(pixels))

    def attack(
        self,
        images: Any,
        labels: Any = None,
        indices: Any = None,
        *,
        seed: int = 0,
        epoch: int = 0,
        targets: Any = None,
        flow: Any = None,
        pixel: Any = None,
        steps: int | None = None,
        start: Start | None = None,
    ) -> AttackResult:
        """Return a result as Session.attack does, in the images' library and on their device.

        The other arguments may be on any device.

        Raises:
            DataError: see Session.attack; or the images are on another device than the session.
            BudgetError: see Session.attack.
        """
        back = library_of(images)
        with torch.inference_mode(False), torch.no_grad():
            pixels, levels = self._read(images)
            count, config = len(pixels), self._manifest.config
            steps = steps_of(self._manifest, steps)
            clean = self._logits(pixels)
            label = self._labels(labels, clean)
            rows = as_indices(on_host(indices), count)
            radii = radii_of(self._manifest, on_host(flow), on_host(pixel), count)
            numbers = {
                name: torch.from_numpy(np.ascontiguousarray(array)).to(pixels.device)
                for name, array in with_steps(*radii, config, steps).items()
            }
            draws = Draws(seed, epoch, rows)
            problem = Problem(
                model=self._logits,
                config=config,
                image=pixels,
                levels=levels,
                label=label,
                target=self._targets(targets, label, draws),
                given=targets is not None,
                classes=self._manifest.classes,
                radius={"flow": numbers["flow_radius"], "pixel": numbers["pixel_radius"]},
                step={"flow": numbers["flow_step"], "pixel": numbers["pixel_step"]},
                drawn={},
                draws=draws,
                clean=clean,
            )
            if start is not None:
                start.check(pixels.shape, config.branches, rows, seed, epoch, *radii)
            result = self._attacked(problem, calls_of(self._manifest, steps), start)
        values = (getattr(result, field.name) for field in fields(result))
        return AttackResult(*(None if value is None else back(value) for value in values))

    def _read(self, images: Any) -> tuple[Tensor, Tensor | None]:
        tensor = as_tensor(images, "images")
        found = read_images(tensor, self._manifest.image_shape)
        # Pinned host memory reports neither the CPU nor CUDA.
        if len(tensor):
            self._check_place(place_of(images) or ("cpu", 0), self._size(len(tensor)))
        return found

    def _check_place(self, place: Place, size: int) -> None:
        kind = self._compiled.network(size).device
        own = (kind, self._compiled.number if kind == "cuda" else 0)
        if place != own:
            here, there = name_of(own), name_of(place)
            raise DataError(
                f"images: they are on {there}, and the session computes on {here}; open the "
                f"session with device={there!r}, or move the images to {here}"
            )

    def _size(self, count: int) -> int:
        return self._compiled.size(count)

    def _labels(self, labels: Any, clean: Tensor) -> Tensor:
        if labels is None:
            return clean.argmax(1)
        return read_labels(labels, "labels", clean, self._manifest.classes)

    def _targets(self, targets: Any, label: Tensor, draws: Draws) -> Tensor:
        if targets is None:
            return draws.target(label, self._manifest.classes)
        check_targeted(self._manifest.config)
        target = read_labels(targets, "targets", label, self._manifest.classes)
        if bool((target == label).any()):
            check_targets(target.cpu().numpy(), label.cpu().numpy())
        return target

    def _attacked(self, problem: Problem, calls: int, start: Start | None) -> AttackResult:
        count = len(problem.image)
        if not count:
            shape = (0, *self._manifest.image_shape)
            images = Images(np.zeros(shape, np.float32), problem.levels is not None)
            none = no_results(images, problem.classes, problem.config.targeted)
            return AttackResult(
                *(v if v is None else torch.from_numpy(v).to(problem.image.device)
                  for v in vars(none).values())
            )  # fmt: skip
        size = self._size(count)
        results = []
        for first in range(0, count, size):
            part = slice(first, min(first + size, count))
            own = _part(problem, part)
            results.append(self._part(own, calls, self._start(own, part, start)))
        return joined(results, torch.cat)

    def _start(self, problem: Problem, part: slice, start: Start | None) -> State:
        if start is None:
            draws = problem.draws
            drawn = noise.starts(
                problem.image.shape, draws.indices, problem.radius, problem.config,
                seed=draws.seed, epoch=draws.epoch,
            )  # fmt: skip
            return joint.start(replace(problem, drawn=drawn))
        flow, delta = start.part(part, len(problem.image))
        held: dict[Branch, Any] = {"flow": flow, "pixel": delta}
        return {
            branch: torch.from_numpy(held[branch]).to(problem.image.device)
            for branch in problem.config.branches
        }

    def _part(self, problem: Problem, calls: int, start: State) -> AttackResult:
        stepper, best = self._steps(problem.image), None
        stepper.load(_values(problem), start)
        keeps = problem.config.keep == "best" and self._manifest.form == "step"
        for number in range(calls):
            if (now := problem.for_iteration(number)) is not problem:
                stepper.retarget(now.target)
            problem = now
            logits, loss = stepper.iterate()
            if keeps:
                best = _kept(best, judge(problem, stepper.state(before=True), logits, loss))
        state = stepper.state()
        if keeps:
            logits, loss = self._measure(problem, problem.image, state)
            state = better(best, judge(problem, state, logits, loss)).state
        return joint.finish(problem, state, partial(self._measure, problem))

    def _measure(
        self, problem: Problem, image: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._network(image)(image, problem.label, problem.target, state)

    def _logits(self, pixels: Tensor) -> Tensor:
        if not len(pixels):
            return pixels.new_zeros((0, self._manifest.classes))
        network = self._network(pixels)
        return torch.cat(
            [network(part)[0] for part in torch.split(pixels, self._size(len(pixels)))]
        )

    def _network(self, images: Tensor) -> Meter:
        if self._meter is None:
            size = self._size(len(images))
            engine = self._compiled.network(size)
            self._meter = Meter(engine, self._manifest, size, images.device)
        return self._meter

    def _steps(self, images: Tensor) -> TensorStepper:
        if self._stepper is None:
            size = self._size(len(images))
            # Nothing else binds this engine, so a CUDA graph may capture its addresses.
            engine = self._compiled.step(size)
            self._stepper = TensorStepper(engine, self._manifest, size, images.device)
        return self._stepper


def _kept(best: Candidate | None, found: Candidate) -> Candidate:
    if best is not None:
        return better(best, found)
    # Its tensors are copied, because the iterations overwrite them.
    state: State = {branch: value.clone() for branch, value in found.state.items()}
    return replace(found, state=state)


def _values(problem: Problem) -> dict[str, Tensor]:
    """Return the artifact's inputs other than the state, by name."""
    values = {"image": problem.image, "label": problem.label, "target": problem.target}
    for branch in INPUT:
        values[f"{branch}_radius"] = problem.radius[branch]
        values[f"{branch}_step"] = problem.step[branch]
    return values


def _part(problem: Problem, part: slice) -> Problem:
    draws = problem.draws
    return replace(
        problem,
        image=problem.image[part],
        levels=None if problem.levels is None else problem.levels[part],
        label=problem.label[part],
        target=problem.target[part],
        clean=None if problem.clean is None else problem.clean[part],
        radius={branch: value[part] for branch, value in problem.radius.items()},
        step={branch: value[part] for branch, value in problem.step.items()},
        draws=replace(draws, indices=draws.indices[part]),
    )
