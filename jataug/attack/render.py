"""Renders the image of a state, in both compositions. Gradients pass through the clips."""

from torch import Tensor

from ..config import Composition
from .projection import Branch
from .warp import warp

__all__ = ["State", "base", "clip", "render"]

State = dict[Branch, Tensor]
"""The flow w (batch, 2, height, width) and the perturbation d. A branch that is off is absent."""


def render(image: Tensor, state: State, composition: Composition) -> Tensor:
    """Return clip(T(x, w) + d) for "spatial-pixel", T(clip(x + d), w) for "pixel-spatial".

    Claims 4 and 17 have the former, 11 and 18 the latter. x is warped once, by the
    accumulated flow (claims 3, 10).

    Args:
        image: (batch, channel, height, width), in [0, 1]; x.
        state: w and d.
        composition: "spatial-pixel" or "pixel-spatial".
    """
    if composition == "spatial-pixel":
        return _added(_moved(image, state), state)
    return _moved(_added(image, state), state)


def base(image: Tensor, state: State, composition: Composition) -> Tensor:
    """Return the image that d is added to: T(x, w) for "spatial-pixel", x for "pixel-spatial"."""
    return _moved(image, state) if composition == "spatial-pixel" else image


def clip(image: Tensor) -> Tensor:
    """Return `image` clipped to [0, 1].

    Gradients pass through it unchanged, because the clip belongs to the projection.
    """
    return image.detach().clamp(0, 1) + (image - image.detach())


def _moved(image: Tensor, state: State) -> Tensor:
    return warp(image, state["flow"]) if "flow" in state else image


def _added(image: Tensor, state: State) -> Tensor:
    return clip(image + state["pixel"]) if "pixel" in state else image
