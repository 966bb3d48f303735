"""Random joint augmentation in torch, on the device of the images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import streams
from ..attack.finalize import finalize, from_levels, quantize
from ..attack.geometry import ball
from ..attack.warp import warp
from ..budget import FlowBudget, PixelBudget
from ..config import AttackConfig

__all__ = ["drawn", "streamed", "words"]

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_HALF = 0xFFFFFFFF


def drawn(images: Tensor, config: AttackConfig, generator: torch.Generator | None) -> Tensor:
    """Return images with flow and perturbation drawn from torch's random source.

    Args:
        images: (batch, channel, height, width), uint8, or floating in [0, 1].
        config: budgets, norms and composition.
        generator: of the draws, on the images' device; None is torch's own.
    """
    planes = _planes(images)
    batch, _, height, width = planes.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=images.device)

    state = {}
    if config.flow.radius:
        state["flow"] = _flow(uniform(batch, 2, height, width), config.flow)
    if config.pixel.radius:
        state["pixel"] = _delta(uniform(batch, 1 + 2 * planes[0].numel()), planes, config.pixel)
    return _rendered(images, planes, state, config)


def streamed(
    images: Tensor, indices: Sequence[int], config: AttackConfig, seed: int, epoch: int
) -> Tensor:
    """Return what an attack of no steps returns: jataug.loaders.joint.streamed, on a device that
    has float64; images as for `drawn`.
    """
    planes = _planes(images)
    batch, _, height, width = planes.shape

    def uniform(tensor: int, count: int) -> Tensor:
        raw = words(seed, indices, tensor, count, epoch=epoch, device=images.device)
        return ((raw >> 11) & (2**53 - 1)).double() * 2.0**-53

    state = {}
    if config.flow.radius:
        u = uniform(streams.FLOW, 2 * height * width).view(batch, 2, height, width)
        state["flow"] = _flow(u, config.flow)
    if config.pixel.radius:
        u = uniform(streams.PIXEL, _needed(planes, config.pixel))
        delta, base = _delta(u, planes, config.pixel), planes
        if "flow" in state and config.composition == "spatial-pixel":
            base = warp(planes, state["flow"])
        state["pixel"] = (base + delta).clamp(0, 1) - base
    return _rendered(images, planes, state, config)


def words(
    seed: int,
    indices: Sequence[int],
    tensor: int,
    count: int,
    *,
    epoch: int,
    device: torch.device,
) -> Tensor:
    """Return the first words of each sample's stream: (batch, count), int64 with the bits of
    uint64; see jataug.streams.words.
    """
    blocks = -(-count // 4)
    block = torch.arange(1, blocks + 1, device=device).expand(len(indices), -1)
    keys = [torch.full_like(block, _signed(seed))]
    held = torch.tensor([_signed(index) for index in indices], device=device)
    keys.append(held[:, None].expand_as(block))
    counter = [block, *(torch.full_like(block, _signed(v)) for v in (tensor, 0, epoch))]
    for _ in range(_ROUNDS):
        high0, low0 = _product(_MULTIPLIERS[0], counter[0])
        high1, low1 = _product(_MULTIPLIERS[1], counter[2])
        counter = [high1 ^ counter[1] ^ keys[0], low1, high0 ^ counter[3] ^ keys[1], low0]
        keys = [key + _signed(step) for key, step in zip(keys, _WEYL, strict=True)]
    return torch.stack(counter, dim=-1).flatten(1)[:, :count]


def _product(multiplier: int, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return both halves of an unsigned 128-bit product; int64 multiplication wraps."""
    high, low = multiplier >> 32, multiplier & _HALF
    value_high, value_low = _upper(value), value & _HALF
    middle = high * value_low + _upper(low * value_low)
    other = low * value_high + (middle & _HALF)
    return high * value_high + _upper(middle) + _upper(other), value * _signed(multiplier)


def _upper(value: Tensor) -> Tensor:
    return (value >> 32) & _HALF


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


def _planes(images: Tensor) -> Tensor:
    if images.dtype == torch.uint8:
        return from_levels(images.permute(0, 2, 3, 1))
    return images.float().contiguous()


def _needed(planes: Tensor, budget: PixelBudget) -> int:
    size = planes[0].numel()
    return size if budget.norm == "linf" else 1 + 2 * size


def _flow(u: Tensor, budget: FlowBudget) -> Tensor:
    radius = u.new_full((len(u),), budget.radius).float()
    if budget.norm == "linf":
        return ball("flow", (budget.radius * (2 * u - 1)).float(), radius, "linf")
    length, angle = budget.radius * u[:, 0].sqrt(), 2 * torch.pi * u[:, 1]
    flow = torch.stack([length * angle.cos(), length * angle.sin()], dim=1)
    return ball("flow", flow.float(), radius, "l2")


def _delta(u: Tensor, planes: Tensor, budget: PixelBudget) -> Tensor:
    """Return a perturbation of numbers in [0, 1): (batch, at least as many as are needed)."""
    n = planes[0].numel()
    if budget.norm == "linf":
        delta = budget.radius * (2 * u[:, :n] - 1)
    else:
        normal = (-2 * (-u[:, 1 : n + 1]).log1p()).sqrt() * (2 * torch.pi * u[:, n + 1 :]).cos()
        length = budget.radius * u[:, :1] ** (1 / n)
        delta = length * normal / normal.norm(dim=1, keepdim=True)
    radius = u.new_full((len(u),), budget.radius).float()
    return ball("pixel", delta.float().view_as(planes), radius, budget.norm)


def _rendered(
    images: Tensor, planes: Tensor, state: dict[str, Tensor], config: AttackConfig
) -> Tensor:
    radius = planes.new_full((len(planes),), config.pixel.radius)
    exact, warped, _, _ = finalize(planes, state, radius, config)  # type: ignore[arg-type]
    if images.dtype == torch.uint8:
        return quantize(exact, warped, radius).permute(0, 3, 1, 2).contiguous()
    return exact.to(images.dtype)
