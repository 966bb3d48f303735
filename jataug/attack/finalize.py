"""Turns the final state of an attack into an image: jataug.finalize in torch."""

import torch
from torch import Tensor

from ..config import AttackConfig
from .projection import Branch, ball
from .render import State, base, clip, render

__all__ = ["finalize", "from_levels", "quantize", "to_half"]

_SLACK = 1e-6
"""How far the bounds of an 8-bit level are widened; see jataug.finalize."""


def from_levels(levels: Tensor) -> Tensor:
    """Return 8-bit images (batch, height, width, channel) as float32 in [0, 1], channels first."""
    planes = levels.permute(0, 3, 1, 2).contiguous().float()
    # On CUDA a Python number would become a multiplication by 1/255, which rounds differently.
    return planes / planes.new_tensor(255)


def to_half(flow: Tensor) -> Tensor:
    """Return `flow` truncated towards zero to float16, so that no vector grows."""
    half = flow.half()
    grew = half.to(flow.dtype).abs() > flow.abs()
    # Subtracting 1 from the bits is one step towards zero, for both signs.
    return torch.where(grew, (half.view(torch.int16) - 1).view(torch.float16), half)


def finalize(
    image: Tensor, state: State, radius: dict[Branch, Tensor], config: AttackConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Project the flow, truncate it to float16, render with it, project the perturbation, clip.

    Args:
        image: (batch, channel, height, width), float32 in [0, 1].
        state: w and d; a branch that is off is absent.
        radius: of each branch that is on, (batch,).
        config: the composition and the norms of the budgets.

    Returns:
        The adversarial image, T(image, flow), the float16 flow, and delta as a result reports it.
    """
    batch, _, height, width = image.shape
    half = image.new_zeros((batch, 2, height, width), dtype=torch.float16)
    state = {branch: value.nan_to_num(0.0, 0.0, 0.0) for branch, value in state.items()}
    if "flow" in state:
        half = to_half(ball("flow", state["flow"], radius["flow"], config.flow.norm))
        state["flow"] = half.float()
    if "pixel" in state:
        state["pixel"] = ball("pixel", state["pixel"], radius["pixel"], config.pixel.norm)

    adversarial = render(image, state, config.composition)
    warped = base(image, state, "spatial-pixel")
    if "pixel" not in state:
        return adversarial, warped, half, torch.zeros_like(image)
    if config.composition == "spatial-pixel":
        return adversarial, warped, half, adversarial - warped
    return adversarial, warped, half, clip(image + state["pixel"]) - image


def quantize(adversarial: Tensor, warped: Tensor, radius: Tensor) -> Tensor:
    """Return the 8-bit level nearest `adversarial` within `radius` of `warped`.

    If there is none, it is the level nearest `warped`.

    Args:
        adversarial: (batch, channel, height, width), float32 in [0, 1].
        warped: as `adversarial`; T(image, flow).
        radius: (batch,), the pixel radius of each image.

    Returns:
        (batch, height, width, channel), uint8.
    """
    centre, bound = warped.double(), radius.double().view(-1, 1, 1, 1)
    least = (255 * ((centre - bound).clamp_min(0) - _SLACK)).ceil()
    most = (255 * ((centre + bound).clamp_max(1) + _SLACK)).floor()
    nearest = (255 * adversarial.double()).round().clamp(least, most)
    levels = torch.where(least <= most, nearest, (255 * centre).round())
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
