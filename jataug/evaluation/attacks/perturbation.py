"""The flow and perturbation of a batch, and the image that they render.

Every state is finalised as in docs/method.md: the flow is truncated to float16, and the
perturbation is projected and clipped. So attacks see exactly the images that are measured.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...budget import FlowBudget, Norm, PixelBudget
from ...config import Composition
from ...finalize import project, to_half
from ...streams import flow_start, pixel_start
from ..models.model import Array
from .best_found import View
from .tries import Rows
from .warp import Warped

__all__ = ["Branch", "Context", "State", "direction"]

Branch = Literal["flow", "pixel"]
_VECTOR: dict[Branch, tuple[int, ...]] = {"flow": (1,), "pixel": (1, 2, 3)}


@dataclass(frozen=True)
class Context:
    """Settings that all attacks of an evaluation share.

    Attributes:
        seed: the seed of all random draws.
        flow_norm: "l2" per pixel, or "linf".
        pixel_norm: "linf", or "l2" over the image.
    """

    seed: int = 0
    flow_norm: Norm = "l2"
    pixel_norm: Norm = "linf"

    def norm(self, branch: Branch) -> Norm:
        """Return the norm of a branch's budget."""
        return self.flow_norm if branch == "flow" else self.pixel_norm


class State:
    """Flow w and perturbation d of some rows; a branch that is off is None.

    Args:
        rows: the images to attack, with their radii.
        context: norms and seed.
        branches: the branches that are on.
        composition: "spatial-pixel" is clip(T(x, w) + d), "pixel-spatial" T(clip(x + d), w).
    """

    def __init__(
        self,
        rows: Rows,
        context: Context,
        branches: tuple[Branch, ...],
        composition: Composition = "spatial-pixel",
    ) -> None:
        self._rows, self._context, self._composition = rows, context, composition
        count, _, height, width = rows.image.shape
        on = set(branches)
        self._flow = np.zeros((count, 2, height, width), np.float32) if "flow" in on else None
        self._delta = np.zeros_like(rows.image) if "pixel" in on else None
        self._render()

    def randomize(self) -> None:
        """Draw flow and perturbation uniformly within their budgets, with one stream per row."""
        rows, context, size = self._rows, self._context, self._rows.image.shape[1:]
        streams = list(zip(rows.index, rows.restart, rows.flow, rows.pixel, strict=True))
        if self._flow is not None:
            drawn = [
                flow_start(
                    context.seed, int(i), size[1:], FlowBudget(float(w), context.flow_norm),
                    restart=int(k)
                )
                for i, k, w, _ in streams
            ]  # fmt: skip
            self._flow = self._bounded("flow", np.stack(drawn))
        if self._delta is not None:
            drawn = [
                pixel_start(
                    context.seed, int(i), size, PixelBudget(float(d), context.pixel_norm),
                    restart=int(k)
                )
                for i, k, _, d in streams
            ]  # fmt: skip
            self._delta = self._bounded("pixel", np.stack(drawn))
        self._render()

    def _bounded(self, branch: Branch, value: Array, base: Array | None = None) -> Array:
        radius = self._rows.flow if branch == "flow" else self._rows.pixel
        value = project(value, radius, self._context.norm(branch), _VECTOR[branch], base)
        return to_half(value).astype(np.float32) if branch == "flow" else value

    def _base(self) -> Array:
        """Return the image that the perturbation is added to."""
        if self._composition == "pixel-spatial" or self._warped is None:
            return self._rows.image
        return self._warped.image

    def _render(self) -> None:
        image = self._rows.image
        if self._composition == "pixel-spatial" and self._delta is not None:
            image = np.clip(image + self._delta, 0, 1)
            self._delta = image - self._rows.image
        self._warped = None if self._flow is None else Warped(image, self._flow)
        ground = image if self._warped is None else self._warped.image
        if self._composition == "pixel-spatial" or self._delta is None:
            self.image = ground
        else:
            self.image = np.clip(ground + self._delta, 0, 1)
            self._delta = self.image - ground

    @property
    def view(self) -> View:
        """The image, with its flow and perturbation."""
        return View(self.image, self._flow, self._delta)

    def move(self, branch: Branch, gradient: Array, step: Array) -> None:
        """Move one branch along its direction of ascent, and project.

        Args:
            branch: "flow" or "pixel".
            gradient: with respect to the image.
            step: (rows,), in the branch's unit.
        """
        slope = self._slope(branch, gradient)
        away = step.reshape(-1, 1, 1, 1) * direction(branch, slope, self._context.norm(branch))
        if branch == "flow":
            assert self._flow is not None
            self._flow = self._bounded("flow", self._flow + away)
        else:
            assert self._delta is not None
            self._delta = self._bounded("pixel", self._delta + away, self._base())
        self._render()

    def _slope(self, branch: Branch, gradient: Array) -> Array:
        if branch == "flow":
            assert self._warped is not None
            return self._warped.flow_gradient(gradient)
        if self._composition == "pixel-spatial" and self._warped is not None:
            return self._warped.image_gradient(gradient)
        return gradient

    def take(self, where: Array) -> "State":
        """Return the state of the rows at these positions."""
        part = object.__new__(State)
        part._rows, part._context = self._rows.take(where), self._context
        part._composition = self._composition
        part._flow = None if self._flow is None else self._flow[where]
        part._delta = None if self._delta is None else self._delta[where]
        part._render()
        return part


def direction(branch: Branch, gradient: Array, norm: Norm) -> Array:
    """Return the generalized gradient sign (claims 5, 6): the sign for "linf", g / ||g|| for "l2".

    A zero vector stays zero. Vectors of length 1e-24 or 1e30 neither vanish nor overflow.
    """
    if norm == "linf":
        return np.sign(gradient)
    axes = _VECTOR[branch]
    largest = np.abs(gradient).max(axis=axes, keepdims=True)
    scaled = gradient / np.where(largest > 0, largest, np.float32(1))
    length = np.sqrt(np.square(scaled).sum(axis=axes, keepdims=True))
    found: Array = scaled / np.maximum(length, np.float32(1))
    return found
