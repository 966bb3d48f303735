"""Two attacks compared by what the program decides, and not by what a processor's rounding does.

Kernels of another processor, runtime, batch size or number of threads add in another order. A
gradient then differs by some rounding, and a whole attack turns that into whole steps: where an
entry of a gradient is within rounding of zero its sign is anything, and the next iteration starts
from another image. How many entries that is says nothing about the program. So:

- `check_iteration` compares single iterations from the same state with the attack in float64. Each
  entry may differ as far as its own gradient's rounding carries the step, and no further.
- `check_outcome` compares whole attacks by their budgets, losses and predictions.

Rounding: a float32 sum of n terms errs by about 6e-8 sqrt(n) of their size, so the entries of a
gradient err by some 1e-6 of the image's largest one (measured: 1.6e-6 at most on one processor);
GRADIENT leaves room for kernels twenty times worse. At a kink (of a relu, of a maximum, of the warp
at whole pixels) the gradient jumps, and rounding chooses the side. Therefore it is taken again at
images and flows that lie KINK to either side, some fifty units in the last place of a pixel near 1,
and an entry may differ by as much as it changed there. A flow of exactly whole pixels has its side
by definition and stays as it is.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
import torch

from jataug.attack import joint
from jataug.attack.objective import loss
from jataug.attack.problem import Problem, predict, read
from jataug.attack.render import render
from jataug.budget import radius_of
from jataug.finalize import from_levels
from jataug.runtime.stepper import Stepper
from jataug.warp import warp

__all__ = [
    "GAIN",
    "check_attack",
    "check_gradients",
    "check_iteration",
    "check_outcome",
    "recorded",
]

GRADIENT = 3e-5
"""Rounding of an entry of a gradient, in units of the largest entry of its image."""

KINK = 3e-6
"""How far images and flows are moved to find the kinks near by."""

STATE = 5e-6
"""Rounding of an entry of the state, in pixels of flow and in units of the image."""

LOGITS = 2e-5
"""Rounding of a logit, in units of the largest one, or of 1."""

GAIN = 0.15
"""Largest difference of the mean loss after a whole attack, in units of what the attack gained. The
torch attacks of tests/runtime/test_parity.py differ by 0.04 from themselves where the images are
moved by 1e-5 of their values, a hundred times their rounding.
"""

AXES = {"flow": (1,), "pixel": (1, 2, 3)}


def widened(problem: Problem) -> Problem:
    """Return the problem in float64, its network too."""
    return replace(
        problem,
        model=copy.deepcopy(problem.model).double(),
        image=problem.image.double(),
        radius={branch: value.double() for branch, value in problem.radius.items()},
        step={branch: value.double() for branch, value in problem.step.items()},
    )


def gradients(problem, state, branches):
    """Return the gradients by branch, and by how much each entry may differ."""
    found, _ = joint.ascent(problem, state, branches)
    jumps = {branch: torch.zeros_like(gradient) for branch, gradient in found.items()}
    generator = torch.Generator().manual_seed(0)

    def signs(like):
        return (2 * torch.randint(2, like.shape, generator=generator) - 1).to(like.dtype)

    for _ in range(2):
        move = KINK * signs(problem.image)
        flow = state.get("flow")
        flow_move = None if flow is None else KINK * signs(flow) * (flow != flow.round())
        for side in (1, -1):
            moved = state if flow is None else {**state, "flow": flow + side * flow_move}
            at = replace(problem, image=problem.image + side * move)
            for branch, gradient in joint.ascent(at, moved, branches)[0].items():
                jumps[branch] = torch.maximum(jumps[branch], (gradient - found[branch]).abs())
    largest = {b: g.abs().amax((1, 2, 3), keepdim=True) for b, g in found.items()}
    return found, {branch: GRADIENT * largest[branch] + jumps[branch] for branch in found}


def length(branch, value):
    return value.square().sum(AXES[branch], keepdim=True).sqrt()


def check_branch(problem, branch, gradient, slack, state, found, rounding):
    """Check the update of one branch from `state`, given its gradient in float64."""
    norm = problem.config.flow.norm if branch == "flow" else problem.config.pixel.norm
    step = joint._step(problem, branch, gradient)
    off = (found - joint.move(problem, state, {branch: step})[branch]).abs()
    # How far a step of 1 may turn where the gradient differs by its slack; projections add nothing.
    if norm == "linf":
        sizes = gradient.abs()
        turn = 2.0 * (sizes <= slack)
    else:
        sizes, off = length(branch, gradient), length(branch, off)
        turn = (2 * length(branch, slack) / sizes.clamp_min(1e-30)).clamp_max(2)
        rounding = rounding * (found[0].numel() if branch == "pixel" else 2) ** 0.5
    allowed = rounding + problem.step[branch].view(-1, 1, 1, 1) * turn
    worst = (off / allowed).max().item()
    assert worst <= 1, f"{branch}: {worst:.3g} of what rounding explains"
    compared = (turn < 0.1)[sizes > 0].double().mean().item()
    assert compared >= 0.5, f"{branch}: only {compared:.0%} of the entries can be compared"


def check_iteration(problem, before, after, rounding=STATE, branches=None):
    """Check one iteration against float64: from `before`, it led to `after`.

    The second branch's gradient is taken from the first branch's update as it was found.

    Args:
        problem: in float32; its network is a torch module.
        before: tensors by branch, float32.
        after: likewise.
        rounding: of an entry of the state.
        branches: which updates were made; default all of the configuration.
    """
    problem = widened(problem)
    state = {branch: value.double() for branch, value in before.items()}
    assert set(after) == set(state) == set(problem.config.branches)
    branches = branches or problem.config.branches
    for turn in [branches] if problem.config.simultaneous else [(b,) for b in branches]:
        found, slack = gradients(problem, state, turn)
        for branch in sorted(turn):  # as joint.move: the flow first, the perturbation against it
            own = after[branch].double()
            check_branch(problem, branch, found[branch], slack[branch], state, own, rounding)
            state = {**state, branch: own}


def check_gradients(problem, state, found):
    """Check gradients at a state against float64, in size too."""
    wide = {branch: value.double() for branch, value in state.items()}
    expected, slack = gradients(widened(problem), wide, tuple(found))
    for branch, gradient in expected.items():
        worst = ((found[branch] - gradient).abs() / slack[branch]).max().item()
        assert worst <= 1, f"{branch}: {worst:.3g} of what rounding explains"


@dataclass(frozen=True)
class Call:
    """A session's run of its artifact: inputs, logits, and the state by branch before and after."""

    inputs: dict[str, np.ndarray]
    logits: np.ndarray
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """Record every call of an artifact that sessions make meanwhile."""
    calls, iterate = [], Stepper.iterate

    def state_of(stepper):
        state = zip(("flow", "pixel"), stepper.state(), strict=True)
        return {branch: value for branch, value in state if value is not None}

    def recording(stepper):
        inputs = {name: buffer.numpy().copy() for name, buffer in stepper._inputs.items()}
        before = state_of(stepper)
        iterate(stepper)
        logits = stepper._reports["logits"].numpy().copy()
        calls.append(Call(inputs, logits, before, state_of(stepper)))

    with mock.patch.object(Stepper, "iterate", recording):
        yield calls


def check_attack(module, session, config, images, **given):
    """Check every iteration that the session makes, and return its result.

    What each iteration is given (starts, targets, radii, step sizes, the state of the one before)
    must be what the torch attack of `config` has.

    Args:
        module: the network of the session, in torch.
        session: of an artifact of the form step.
        config: what the attack does.
        images: as of Session.attack.
        given: further arguments of Session.attack.
    """
    with recorded() as calls:
        result = session.attack(images, **given)
    count, size = len(images), session.batch_size
    given = {"labels": result.label, "indices": range(count), **given}
    config = config.replace(steps=given.pop("steps", config.steps))
    batches = [slice(first, min(first + size, count)) for first in range(0, count, size)]
    assert len(calls) == config.steps * len(batches)
    for number, rows in enumerate(batches):
        problem = posed(module, config, images, given, rows)
        before = {branch: value.numpy() for branch, value in joint.start(problem).items()}
        for step in range(config.steps):
            now, call = problem.for_iteration(step), calls[number * config.steps + step]
            # The start is drawn by both; from then on the state is the one that the call left.
            check_inputs(now, call, before, STATE if step == 0 else 0)
            left, after = (
                {branch: torch.from_numpy(value[: len(now.image)]) for branch, value in s.items()}
                for s in (call.before, call.after)
            )
            with torch.no_grad():
                check_iteration(now, left, after)
                logits = predict(module, render(now.image, left, config.composition))
            close = LOGITS * max(1, logits.abs().max().item())
            np.testing.assert_allclose(call.logits[: len(logits)], logits, rtol=0, atol=close)
            before = {branch: value.numpy() for branch, value in after.items()}
    return result


def posed(module, config, images, given, rows):
    """Return the torch attack's problem for some rows of a call."""
    own = {
        name: value[rows.start : rows.stop] if np.ndim(value) or isinstance(value, range) else value
        for name, value in given.items()
    }
    radius = {"flow": own.pop("flow", None), "pixel": own.pop("pixel", None)}
    rest = {"targets": None, "seed": 0, "epoch": 0, **own}
    with torch.no_grad():
        return read(module, config, torch.from_numpy(images[rows]), radius=radius, **rest)


def check_inputs(problem, call, before, rounding):
    rows = len(problem.image)
    np.testing.assert_array_equal(call.inputs["image"][:rows], problem.image)
    np.testing.assert_array_equal(call.inputs["label"][:rows], problem.label)
    np.testing.assert_array_equal(call.inputs["target"][:rows], problem.target)
    for name, values in (("radius", problem.radius), ("step", problem.step)):
        for branch in before:
            found = call.inputs[f"{branch}_{name}"][:rows]
            np.testing.assert_allclose(found, values[branch], rtol=1e-6, err_msg=f"{branch} {name}")
    assert call.before.keys() == before.keys()
    for branch, value in before.items():
        np.testing.assert_allclose(call.before[branch][:rows], value, rtol=0, atol=rounding)


def losses(config, logits, result):
    arrays = (torch.from_numpy(array) for array in (logits, result.label, result.target))
    return loss(config.reported_objective, *arrays).numpy()


def check_outcome(expected, found, clean, images, config, flow=None, pixel=None):
    """Check that two results of a whole attack are as good as each other, and the budget of one.

    Args:
        expected: AttackResult of arrays.
        found: likewise; its budget is checked.
        clean: logits of the clean images.
        images: what was attacked.
        config: how.
        flow: flow radius, one or (batch,); default the configuration's.
        pixel: likewise.
    """
    for name in ("label", "target", "failed"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    for name in ("adversarial", "exact", "flow", "delta", "loss", "logits"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
    before = losses(config, clean, expected)
    gained = np.abs(expected.loss - before).mean()
    apart = np.abs(found.loss.mean() - expected.loss.mean())
    assert apart <= GAIN * gained + 1e-5, f"mean loss: {apart:.3g} apart, gained {gained:.3g}"
    np.testing.assert_allclose(
        found.loss, losses(config, found.logits, found), rtol=1e-4, atol=1e-5
    )
    predicted = (found.logits.argmax(1) != found.label) & ~found.failed
    np.testing.assert_array_equal(found.success, predicted)
    assert (found.success != expected.success).sum() <= max(1, len(images) // 10)
    check_budgets(found, images, config, flow, pixel)


def check_budgets(result, images, config, flow=None, pixel=None):
    """Check in float64 that a result is in its budgets, as docs/method words them."""
    flow = np.float32(config.flow.radius if flow is None else flow)
    pixel = config.pixel.radius if pixel is None else pixel
    pixel = np.float32(radius_of(pixel, "pixel") if isinstance(pixel, str) else pixel)
    vectors = result.flow.astype(np.float64)
    order = np.inf if config.flow.norm == "linf" else 2
    assert (np.linalg.norm(vectors, order, axis=1).max((1, 2)) <= flow).all()
    clean = from_levels(images) if images.dtype == np.uint8 else images
    exact, delta = result.exact.astype(np.float64), result.delta.astype(np.float64)
    assert 0 <= exact.min() <= exact.max() <= 1
    if config.pixel.norm == "linf":
        apart = np.abs(exact - warp(clean.astype(np.float64), vectors)).max((1, 2, 3))
    elif images.dtype == np.uint8:  # the perturbation to the level that is stored
        apart = np.sqrt(np.square(delta).sum((1, 2, 3))) - np.sqrt(delta[0].size) * 0.5 / 255
    else:
        apart = np.sqrt(np.square(delta).sum((1, 2, 3)))
    assert (apart <= pixel + 2e-6).all()
