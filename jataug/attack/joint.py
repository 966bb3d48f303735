"""The joint attack of claims 1-14: flow and perturbation ascend in turn, each in its budget."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..config import AttackConfig
from ..errors import DataError, ModelError
from ..finalize import channel_axis
from ..result import AttackResult, finite_rows, success_and_reached
from ..streams import Start
from .best_iterate import better, judge
from .finalize import finalize, from_levels, quantize
from .modes import evaluating
from .objective import cotangent, loss
from .problem import Model, Problem, predict, read
from .projection import Branch, ball, direction
from .render import State, base, render

__all__ = ["JointAttack", "Measure", "ascent", "finish", "iterate", "move", "start"]

Measure = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps images (batch, channel, height, width) to logits (batch, classes) and losses (batch,)."""


class JointAttack:
    """The joint attack in torch, with the options, names and result of an exported Session.

    Args:
        config: what the attack does; the default is the preset "claim-1".
    """

    def __init__(self, config: AttackConfig | None = None) -> None:
        self.config = config or AttackConfig()

    def __call__(
        self,
        model: Model,
        images: Tensor,
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
        """Attack a batch and return the result, measured on exactly the images that it holds.

        The model is in evaluation mode during the call; every module's own mode is restored after
        it. No parameter gets a gradient. Each image's result depends on the image, its label,
        index and radii, `seed` and `epoch`, and not on the other images.

        Args:
            model: images in [0, 1] to logits (batch, classes), or to an output that names them
                `logits`.
            images: (batch, channel, height, width), float32 in [0, 1]; or uint8, with 1, 3 or 4
                channels first or last. 8-bit results have the layout of the images.
            labels: (batch,), integers. Default: the model's own prediction.
            indices: (batch,), integers >= 0 that select the random streams. Default: 0 to
                batch - 1.
            seed: selects the random streams, together with `epoch` and the index.
            epoch: see `seed`.
            targets: (batch,), the adversarial-generation labels. Default: drawn uniformly. Given
                targets are never redrawn, whatever `redraw_targets` is. They are refused if no
                objective depends on them.
            flow: flow radius in pixels, one or (batch,). Default: the configuration's.
            pixel: pixel radius, one or (batch,); "8/255" is accepted. Default: the
                configuration's.
            steps: iterations. Default: the configuration's.
            start: what `Session.draw` returned for the same images, indices, seed and epoch, and
                for the same radii or smaller ones.

        Raises:
            DataError: images that are not finite or leave [0, 1]; 8-bit ones whose channels could
                be either axis; labels or targets outside [0, classes), or equal; a start that was
                drawn for something else.
            BudgetError: a radius or step count outside its domain, or for a branch that the
                configuration leaves out.
            ModelError: the output is not logits, or does not depend on the image.
        """
        config = self.config if steps is None else self.config.replace(steps=steps)
        radius: dict[Branch, Any] = {"flow": flow, "pixel": pixel}
        first = _channels_first(images)
        given = images.permute(0, 2, 3, 1) if first else images
        with torch.inference_mode(False), torch.no_grad(), evaluating(model):
            problem = read(
                model, config, given, labels, indices, targets, radius, seed=seed, epoch=epoch
            )
            problem, state = _attack(problem, None if start is None else _given(problem, start))
            result = finish(problem, state, partial(_measure, problem))
        if first:
            turned = result.adversarial.permute(0, 3, 1, 2).contiguous()
            result = replace(result, adversarial=turned)
        return result


def _channels_first(images: Any) -> bool:
    """Return whether images are 8-bit levels with their channels first."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
        return False
    axis = channel_axis(images.shape)
    if axis is None:
        raise DataError(
            f"images: the shape {tuple(images.shape)} of 8-bit images does not tell whether "
            "channels are first or last; give float32 in [0, 1], channels first: images / 255"
        )
    return axis == 1


def _given(problem: Problem, begin: Start) -> State:
    radii = {branch: value.cpu().numpy() for branch, value in problem.radius.items()}
    draws, branches = problem.draws, problem.config.branches
    begin.check(
        problem.image.shape, branches, draws.indices, draws.seed, draws.epoch, radii["flow"],
        radii["pixel"],
    )  # fmt: skip
    held: dict[Branch, Any] = {"flow": begin.flow, "pixel": begin.delta}
    return {branch: torch.tensor(held[branch], device=problem.image.device) for branch in branches}


def _attack(problem: Problem, begin: State | None = None) -> tuple[Problem, State]:
    state, held = start(problem) if begin is None else begin, None
    if not len(problem.image):
        return problem, state
    for iteration in range(problem.config.steps if problem.config.branches else 0):
        problem = problem.for_iteration(iteration)
        moved, logits = iterate(problem, state)
        if problem.config.keep == "best":
            held = better(held, judge(problem, state, logits))
        state = moved
    if held is not None:
        logits = predict(problem.model, render(problem.image, state, problem.config.composition))
        state = better(held, judge(problem, state, logits)).state
    return problem, state


def start(problem: Problem) -> State:
    """Return the start of the attack: zero, or drawn within the budgets and projected."""
    batch, _, height, width = problem.image.shape
    zero: State = {
        "flow": problem.image.new_zeros(batch, 2, height, width),
        "pixel": torch.zeros_like(problem.image),
    }
    return move(problem, {b: zero[b] for b in problem.config.branches}, problem.drawn)


def iterate(problem: Problem, state: State) -> tuple[State, Tensor]:
    """Return the state after one iteration, and the logits (batch, classes) of the state before it.

    The second branch is updated from the image that already has the first branch's update
    (Gauss-Seidel, claims 1 and 8). With `simultaneous`, both are updated from the incoming image
    (Jacobi).
    """
    branches = problem.config.branches
    turns = [branches] if problem.config.simultaneous else [(branch,) for branch in branches]
    seen = []
    for turn in turns:
        gradients, logits = ascent(problem, state, turn)
        state = move(problem, state, {b: _step(problem, b, g) for b, g in gradients.items()})
        seen.append(logits)
    return state, seen[0]


def ascent(problem: Problem, state: State, branches: Iterable[Branch]) -> tuple[State, Tensor]:
    """Return the direction of ascent of each of `branches`, and the logits (batch, classes).

    The directions are gradients of the sum over the images of their losses, up to a positive factor
    per image.

    Raises:
        ModelError: the logits do not depend on the image.
    """
    config, wanted = problem.config, tuple(branches)
    objectives = {"flow": config.flow_objective, "pixel": config.pixel_objective}
    with torch.enable_grad():
        leaf = {b: value.detach().requires_grad_(b in wanted) for b, value in state.items()}
        logits = predict(problem.model, render(problem.image, leaf, config.composition))
    if not logits.requires_grad:
        raise ModelError(
            "model: expected logits with a gradient for the image, got none; the model may detach "
            "its input or run under torch.no_grad"
        )
    seen = logits.detach()
    gradients = {
        branch: torch.autograd.grad(
            logits,
            leaf[branch],
            cotangent(objectives[branch], seen, problem.label, problem.target),
            # The last gradient frees the graph, and a compiled network its buffers with it.
            retain_graph=branch != wanted[-1],
            materialize_grads=True,
        )[0]
        for branch in wanted
    }
    return gradients, seen


def move(problem: Problem, state: State, step: State) -> State:
    """Return `state` after `step`, projected: the flow first, then d against that flow."""
    config, state = problem.config, dict(state)
    if "flow" in step:
        flow = state["flow"] + step["flow"]
        state["flow"] = ball("flow", flow, problem.radius["flow"], config.flow.norm)
    if "pixel" in step:
        delta = state["pixel"] + step["pixel"]
        ground = base(problem.image, state, config.composition)
        delta = ball("pixel", delta, problem.radius["pixel"], config.pixel.norm, ground)
        state["pixel"] = (ground + delta).clamp(0, 1) - ground
    return state


def _step(problem: Problem, branch: Branch, gradient: Tensor) -> Tensor:
    norm = problem.config.flow.norm if branch == "flow" else problem.config.pixel.norm
    return problem.step[branch].view(-1, 1, 1, 1) * direction(branch, gradient, norm)


def finish(problem: Problem, state: State, measure: Measure) -> AttackResult:
    """Return the result of an attack that ended in `state`.

    The image is finalised first, and everything is measured on exactly that image.
    """
    config, radius = problem.config, problem.radius["pixel"]
    exact, warped, flow, delta = finalize(problem.image, state, problem.radius, config)
    levels = None if problem.levels is None else quantize(exact, warped, radius)
    stored = exact if levels is None else from_levels(levels)
    if levels is not None and config.composition == "spatial-pixel":
        delta = stored - warped
    logits, value = measure(stored)

    clean = measure(problem.image)[0] if problem.clean is None else problem.clean
    failed = ~(finite_rows(logits) & finite_rows(clean))
    if failed.any():
        exact[failed] = stored[failed] = problem.image[failed]
        flow[failed] = delta[failed] = 0
        if levels is not None and problem.levels is not None:
            levels[failed] = problem.levels[failed]
        logits, value = measure(stored)
    success, reached = success_and_reached(config, logits, problem.label, problem.target, failed)
    return AttackResult(
        adversarial=exact if levels is None else levels,
        exact=exact,
        flow=flow,
        delta=delta,
        loss=value,
        logits=logits,
        success=success,
        label=problem.label,
        target=problem.target,
        failed=failed,
        reached=reached,
    )


def _measure(problem: Problem, image: Tensor) -> tuple[Tensor, Tensor]:
    logits = predict(problem.model, image)
    objective = problem.config.reported_objective
    return logits, loss(objective, logits, problem.label, problem.target)
