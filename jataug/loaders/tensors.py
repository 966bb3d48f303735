"""Random joint augmentation in torch, on the device of the images."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from .. import streams
from ..attack.finalize import finalize, from_levels, quantize
from ..attack.noise import flow_noise, pixel_noise, pixel_words, uniform
from ..attack.projection import Branch, ball
from ..attack.render import State
from ..attack.warp import warp
from ..budget import FlowBudget, PixelBudget
from ..config import AttackConfig

__all__ = ["drawn", "streamed"]


def drawn(images: Tensor, config: AttackConfig, generator: torch.Generator | None) -> Tensor:
    """Return images with flow and perturbation drawn from torch's random source.

    Args:
        images: (batch, channel, height, width), uint8, or floating in [0, 1].
        config: budgets, norms and composition.
        generator: of the draws, on the images' device; None is torch's own.
    """
    planes = _planes(images)
    batch, _, height, width = planes.shape

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=images.device)

    state: State = {}
    if config.flow.radius:
        state["flow"] = _flow(rand(batch, 2, height, width), config.flow)
    if config.pixel.radius:
        size = planes[0].numel()
        u = rand(batch, 1 + 2 * size)[:, : pixel_words(size, config.pixel.norm)]
        state["pixel"] = _delta(u, planes, config.pixel)
    return _rendered(images, planes, state, config)


def streamed(
    images: Tensor, indices: Sequence[int], config: AttackConfig, seed: int, epoch: int
) -> Tensor:
    """Return what an attack of no steps returns: jataug.loaders.joint.streamed, on a device that
    has float64; images as for `drawn`.
    """
    planes = _planes(images)
    batch, _, height, width = planes.shape
    draw = partial(uniform, seed, indices, epoch=epoch, device=images.device)
    state: State = {}
    if config.flow.radius:
        u = draw(streams.FLOW, 2 * height * width).view(batch, 2, height, width)
        state["flow"] = _flow(u, config.flow)
    if config.pixel.radius:
        u = draw(streams.PIXEL, pixel_words(planes[0].numel(), config.pixel.norm))
        delta, base = _delta(u, planes, config.pixel), planes
        if "flow" in state and config.composition == "spatial-pixel":
            base = warp(planes, state["flow"])
        state["pixel"] = (base + delta).clamp(0, 1) - base
    return _rendered(images, planes, state, config)


def _planes(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return from_levels(images.permute(0, 2, 3, 1))
    return images.float().contiguous()


def _flow(u: Tensor, budget: FlowBudget) -> Tensor:
    radius = u.new_full((len(u),), budget.radius)
    return ball("flow", flow_noise(u, radius, budget.norm), radius.float(), budget.norm)


def _delta(u: Tensor, planes: Tensor, budget: PixelBudget) -> Tensor:
    """Return a perturbation of numbers in [0, 1): (batch, as many as its norm needs)."""
    radius = u.new_full((len(u),), budget.radius)
    delta = pixel_noise(u, radius, budget.norm).view_as(planes)
    return ball("pixel", delta, radius.float(), budget.norm)


def _rendered(images: Tensor, planes: Tensor, state: State, config: AttackConfig) -> Tensor:
    radius: dict[Branch, Tensor] = {
        "flow": planes.new_full((len(planes),), config.flow.radius),
        "pixel": planes.new_full((len(planes),), config.pixel.radius),
    }
    exact, warped, _, _ = finalize(planes, state, radius, config)
    if images.dtype == torch.uint8:
        return quantize(exact, warped, radius["pixel"]).permute(0, 3, 1, 2).contiguous()
    return exact.to(images.dtype)
