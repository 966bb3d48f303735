"""One iteration of the joint attack as a graph (claims 1-14).

Every form of the artifact repeats this body.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import onnx_ir as ir

from jataug.budget import Norm
from jataug.config import AttackConfig, Objective
from jataug.finalize import INSIDE, ROUNDS
from jataug.preprocessing import Preprocessing

from ..gradient.differentiate import Trace, trace
from ..graph.term import Term
from ..model.classifier import Classifier
from ..preprocess import into_network, out_of_network
from .warp import Warp

__all__ = ["Body", "Inputs", "State"]

_FLOW_FIRST: tuple[Literal["flow", "pixel"], ...] = ("flow", "pixel")
_HUGE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class State:
    """What an iteration changes.

    Attributes:
        flow: (batch, 2, height, width), pixels; None where the flow branch is off.
        delta: (batch, channel, height, width), image units; None where the pixel branch is off.
    """

    flow: Term | None
    delta: Term | None


@dataclass(frozen=True)
class Inputs:
    """What an iteration reads.

    Radii and step sizes have the shape (R,). R is a symbolic size of its own: 1 for one number for
    all images, or the batch size for one number per image. A session always feeds one per image.

    Attributes:
        image: (batch, channel, height, width), float32 in [0, 1].
        label: (batch,), int64.
        target: (batch,), int64.
        flow_radius: (R,), float32, pixels; None where the flow branch is off.
        pixel_radius: (R,), float32, image units; None where the pixel branch is off.
        flow_step: (R,), float32, pixels; None as flow_radius.
        pixel_step: (R,), float32, image units; None as pixel_radius.
    """

    image: Term
    label: Term
    target: Term
    flow_radius: Term | None
    pixel_radius: Term | None
    flow_step: Term | None
    pixel_step: Term | None


class Body:
    """The attack on one network.

    Args:
        network: the classifier.
        config: what the attack does.
        preprocessing: maps an image in [0, 1] to the network's input.
        reach: how many whole pixels the warp's stencil reaches; see `reach_of`.
        max_flow_radius: pixels; the graph clamps the flow radius to it.
    """

    def __init__(
        self,
        network: Classifier,
        config: AttackConfig,
        preprocessing: Preprocessing,
        reach: int,
        max_flow_radius: float,
    ) -> None:
        self.network, self.config, self.preprocessing = network, config, preprocessing
        self.reach, self.max_flow_radius = reach, max_flow_radius
        self._warps: dict[ir.Value, Warp] = {}
        self._perturbed: dict[ir.Value, Term] = {}

    def iterate(self, inputs: Inputs, state: State) -> tuple[State, "Evaluation"]:
        """Return the outgoing state, and the network's evaluation at the incoming one."""
        first = self.evaluate(inputs, state)
        current = first
        together = self.config.simultaneous
        branches = self.config.branches
        if together:
            # The flow moves first, because the perturbation is projected against the updated T.
            branches = tuple(b for b in _FLOW_FIRST if b in branches)
        for number, branch in enumerate(branches):
            if number and not together:
                current = self.evaluate(inputs, state)
            state = self._update(branch, inputs, state, current)
        return state, first

    def _update(self, branch: str, inputs: Inputs, state: State, at: "Evaluation") -> State:
        if branch == "flow":
            assert state.flow is not None
            assert inputs.flow_step is not None
            moved = state.flow + per_image(inputs.flow_step) * self._flow_direction(at)
            return replace(state, flow=self.project_flow(moved, inputs))
        assert state.delta is not None
        assert inputs.pixel_step is not None
        moved = state.delta + per_image(inputs.pixel_step) * self._pixel_direction(at)
        return replace(state, delta=self._project_delta(moved, inputs, state))

    def _flow_direction(self, at: "Evaluation") -> Term:
        gradient = finite(at.flow_gradient(self.config.flow_objective))
        return direction(gradient, self.config.flow.norm, [1])

    def _pixel_direction(self, at: "Evaluation") -> Term:
        gradient = finite(at.pixel_gradient(self.config.pixel_objective))
        return direction(gradient, self.config.pixel.norm, [1, 2, 3])

    def project_flow(self, flow: Term, inputs: Inputs) -> Term:
        """Return the flow inside its budget, per pixel."""
        assert inputs.flow_radius is not None
        # Beyond its reach the stencil returns wrong pixels without any error.
        radius = per_image(inputs.flow_radius).minimum(self.max_flow_radius)
        return into_ball(flow, radius, self.config.flow.norm, [1])

    def _project_delta(self, delta: Term, inputs: Inputs, state: State) -> Term:
        """Return the perturbation projected onto its ball, then clipped to a valid image."""
        assert inputs.pixel_radius is not None
        base = inputs.image
        if self.config.composition == "spatial-pixel":
            base = self.warp(inputs.image, state)
        radius = per_image(inputs.pixel_radius)
        delta = into_ball(delta, radius, self.config.pixel.norm, [1, 2, 3], base)
        return clip01(base + delta) - base

    def warp(self, image: Term, state: State) -> Term:
        """Return T(image, flow)."""
        return image if state.flow is None else self.warp_of(state.flow)(image)

    def warp_of(self, flow: Term) -> Warp:
        """Return the warp by this flow. Calls with the same flow share its nodes."""
        if flow.value not in self._warps:
            self._warps[flow.value] = Warp(flow, self.reach)
        return self._warps[flow.value]

    def render(self, inputs: Inputs, state: State) -> Term:
        """Return the adversarial image of a state."""
        if self.config.composition == "spatial-pixel":
            warped = self.warp(inputs.image, state)
            return warped if state.delta is None else clip01(warped + state.delta)
        return self.warp(self.perturbed(inputs, state), state)

    def perturbed(self, inputs: Inputs, state: State) -> Term:
        """Return the image that the warp reads: clean, or perturbed for "pixel-spatial"."""
        if self.config.composition == "spatial-pixel" or state.delta is None:
            return inputs.image
        if state.delta.value not in self._perturbed:
            self._perturbed[state.delta.value] = clip01(inputs.image + state.delta)
        return self._perturbed[state.delta.value]

    def evaluate(self, inputs: Inputs, state: State) -> "Evaluation":
        """Add the network on the image of a state, and return its evaluation."""
        return Evaluation(self, inputs, state)


class Evaluation:
    """The network at one state: logits, loss, and the gradients with respect to flow and pixels.

    Each of them is added to the graph when it is first asked for.
    """

    def __init__(self, body: Body, inputs: Inputs, state: State) -> None:
        self.body, self.inputs, self.state = body, inputs, state
        self.image = body.render(inputs, state)
        self._trace = trace(
            self.image.graph,
            body.network,
            into_network(self.image, body.preprocessing, body.network),
        )
        self._image_gradients: dict[Objective, Term] = {}

    @property
    def logits(self) -> Term:
        """(batch, classes), float32."""
        return self._trace.logits.cast(np.float32)

    @cached_property
    def loss(self) -> Term:
        """(batch,), float32; the objective that the last update of an iteration ascends."""
        return loss(self.logits, self.inputs, self.body.config.reported_objective)

    def image_gradient(self, objective: Objective) -> Term:
        """Return the gradient of the summed objective with respect to the rendered image.

        It equals that gradient up to a positive factor per image; see `cotangent`.
        """
        if objective not in self._image_gradients:
            seed = cotangent(self.logits, self.inputs, objective)
            logits: Trace = self._trace
            gradient = logits.pullback(seed.cast(logits.logits.dtype))
            self._image_gradients[objective] = out_of_network(gradient, self.body.preprocessing)
        return self._image_gradients[objective]

    def flow_gradient(self, objective: Objective) -> Term:
        """Return the gradient with respect to the flow: (batch, 2, height, width).

        The clip of `render` is part of the projection, so the gradient passes through it.
        """
        assert self.state.flow is not None
        warp = self.body.warp_of(self.state.flow)
        source = self.body.perturbed(self.inputs, self.state)
        return warp.flow_gradient(source, self.image_gradient(objective))

    def pixel_gradient(self, objective: Objective) -> Term:
        """Return the gradient with respect to the perturbation, in the image's shape.

        The clip of `render` is part of the projection, so the gradient passes through it.
        """
        gradient = self.image_gradient(objective)
        if self.body.config.composition == "spatial-pixel" or self.state.flow is None:
            return gradient
        return self.body.warp_of(self.state.flow).image_gradient(gradient)


def loss(logits: Term, inputs: Inputs, objective: Objective) -> Term:
    """Return an objective's value per image: (batch,)."""
    log_probability = logits.same("LogSoftmax", logits, axis=1)

    def cross_entropy(label: Term) -> Term:
        return -(log_probability * one_hot(label, logits)).sum([1], keepdims=False)

    if objective == "truth":
        return cross_entropy(inputs.label)
    if objective == "target":
        return -cross_entropy(inputs.target)
    return cross_entropy(inputs.label) - cross_entropy(inputs.target)


def cotangent(logits: Term, inputs: Inputs, objective: Objective) -> Term:
    """Return the ascent direction at the logits: the objective's gradient, rescaled per image.

    The raw cross entropy's true-class entry is exactly 0 in float32 for confident samples, and
    every update is free of scale; so the softmax runs over the other classes.
    """
    truth, target = one_hot(inputs.label, logits), one_hot(inputs.target, logits)
    if objective == "truth":
        return _softmax_over_others(logits, truth) - truth
    if objective == "target":
        return target - _softmax_over_others(logits, target)
    return target - truth


def _softmax_over_others(logits: Term, excluded: Term) -> Term:
    lowest = logits.graph.constant(-_HUGE, np.float32)
    others = logits.same("Where", excluded.cast(bool), lowest, logits)
    return logits.same("Softmax", others, axis=1)


def one_hot(label: Term, logits: Term) -> Term:
    """Return labels (batch,) as rows of 0 and 1, in the shape and type of the logits."""
    batch, classes = logits.shape or ()
    numbers = logits.graph.constant(np.arange(int(classes)).reshape(1, -1), np.int64)
    hot = label.reshape((batch, 1)).equals(numbers).cast(np.float32)
    hot.shape = logits.shape
    return hot


def finite(gradient: Term) -> Term:
    """Return the gradient with 0 in place of entries that are not finite."""
    zero = gradient.graph.constant(0, gradient.dtype)
    return gradient.same("Where", is_finite(gradient), gradient, zero)


def is_finite(term: Term) -> Term:
    """Return where the term is neither infinite nor NaN."""
    return term.abs() <= _HUGE


def direction(gradient: Term, norm: Norm, axes: list[int]) -> Term:
    """Return the generalized gradient sign (claims 5, 6, 12, 13): the sign for linf, gradient /
    |gradient| for l2.

    Dividing by the largest entry first keeps gradients of 1e-24 from vanishing; after that the norm
    is at least 1 wherever it is not 0, so no epsilon is needed.
    """
    if norm == "linf":
        return gradient.sign()
    largest = gradient.abs().max(axes)
    one = gradient.graph.constant(1, gradient.dtype)
    scaled = gradient / largest.same("Where", largest > 0.0, largest, one)
    return scaled / _sum_of_squares(scaled, axes).sqrt().maximum(1.0)


def into_ball(
    term: Term, radius: Term, norm: Norm, axes: list[int], base: Term | None = None
) -> Term:
    """Return the projection onto the ball of `radius`, per pixel or per image.

    The result never exceeds the radius, and a second projection changes nothing. `base` is the
    image that `term` is added to, where the clip to [0, 1] counts; see jataug.finalize.project.
    """
    if norm == "linf":
        return term.minimum(radius).maximum(-radius)
    if base is not None:
        return term * _share(term, clip01(base + term) - base, radius, axes)
    length = _sum_of_squares(term, axes).sqrt()
    shrunk = term * (radius * INSIDE / length.maximum(1e-30))
    return term.same("Where", length <= radius, term, shrunk)


def _share(term: Term, clipped: Term, radius: Term, axes: list[int]) -> Term:
    """Return the factor by which a perturbation has to shrink before it is clipped, as in
    jataug.finalize.
    """
    whole, most, limit = term * term, clipped * clipped, radius * radius
    free, missing = (most > 0.0).where(whole, 0.0), limit
    share: Term | None = None
    for _ in range(ROUNDS):
        if share is not None:
            scaled = share * whole
            free = (scaled < most).where(whole, 0.0)
            missing = limit - _sum(scaled.minimum(most), axes)
        step = missing / _sum(free, axes).maximum(1e-30)
        share = clip01(step if share is None else share + step)
    assert share is not None
    return (_sum(most, axes) <= limit).where(1.0, share.sqrt() * INSIDE)


def _sum_of_squares(term: Term, axes: list[int]) -> Term:
    return _sum(term * term, axes)


def _sum(term: Term, axes: list[int]) -> Term:
    # One axis at a time: one float32 sum over a million entries loses the fifth digit on ONNX
    # Runtime.
    for axis in reversed(axes):
        term = term.sum([axis])
    return term


def clip01(term: Term) -> Term:
    """Return the term clipped to [0, 1]."""
    zero, one = (term.graph.constant(v, term.dtype) for v in (0, 1))
    return term.same("Clip", term, zero, one)


def per_image(values: Term) -> Term:
    """Return values of shape (R,) as (R, 1, 1, 1), with (1, 1, 1, 1) as the recorded shape."""
    column = values.reshape((*(values.shape or ()), 1, 1, 1))
    # R is 1 or the batch. Recorded as 1, it never changes the shape of a result with a batch axis.
    column.shape = (1, 1, 1, 1)
    return column
