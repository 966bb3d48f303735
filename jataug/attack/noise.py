"""Random starts in torch from the words of jataug.streams, on any device with float64."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import streams
from ..budget import Norm
from ..config import AttackConfig
from .projection import Branch
from .render import State

__all__ = ["flow_noise", "pixel_noise", "pixel_words", "starts", "uniform", "words"]

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_HALF = 0xFFFFFFFF
_AT_ONCE = 1 << 22
"""Words that are drawn at a time. Each one needs about a dozen 64-bit integers of memory."""


def starts(
    shape: Sequence[int],
    indices: Sequence[int],
    radius: dict[Branch, Tensor],
    config: AttackConfig,
    *,
    seed: int,
    epoch: int,
) -> State:
    """Return one uniform start for each image, before projection; empty for a start at zero.

    Numbers are those of streams.flow_start and streams.pixel_start. Words and uniform perturbations
    are bit-identical; a cosine or logarithm may differ in its last bit.

    Args:
        shape: (batch, channel, height, width).
        indices: (batch,), sample indices.
        radius: per branch (batch,), on the device that draws.
        config: the branches and their norms.
        seed: selects the streams, together with `epoch` and the index.
        epoch: see `seed`.

    Raises:
        BudgetError: the seed or the epoch does not fit an unsigned 64-bit word.
    """
    if config.start == "zero":
        return {}
    _, channel, height, width = shape
    found: State = {}
    for branch in config.branches:
        own, norm = radius[branch].double(), getattr(config, branch).norm
        size = (2, height, width) if branch == "flow" else (channel, height, width)
        tensor, count = streams.FLOW, 2 * height * width
        if branch == "pixel":
            tensor, count = streams.PIXEL, pixel_words(channel * height * width, norm)
        found[branch] = own.new_empty((len(indices), *size), dtype=torch.float32)
        step = max(1, _AT_ONCE // count)
        for first in range(0, len(indices), step):
            part = slice(first, first + step)
            u = uniform(seed, indices[part], tensor, count, epoch=epoch, device=own.device)
            if branch == "flow":
                found[branch][part] = flow_noise(u.view(-1, *size), own[part], norm)
            else:
                found[branch][part] = pixel_noise(u, own[part], norm).view(-1, *size)
    return found


def flow_noise(u: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """Return a flow from numbers in [0, 1): (batch, 2, height, width), float32.

    `u` has the same shape; see streams.flow_start.
    """
    radius = radius.to(u.dtype).view(-1, 1, 1)
    if norm == "linf":
        return (radius[:, None] * (2 * u - 1)).float()
    length, angle = radius * u[:, 0].sqrt(), 2 * torch.pi * u[:, 1]
    return torch.stack([length * angle.cos(), length * angle.sin()], dim=1).float()


def pixel_noise(u: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """Return a perturbation (batch, n), float32, from numbers in [0, 1).

    `u` has the shape (batch, pixel_words(n)); see streams.pixel_start.
    """
    radius = radius.to(u.dtype)[:, None]
    if norm == "linf":
        return (radius * (2 * u - 1)).float()
    n = (u.shape[1] - 1) // 2
    normal = (-2 * (-u[:, 1 : n + 1]).log1p()).sqrt() * (2 * torch.pi * u[:, n + 1 :]).cos()
    length = radius * u[:, :1].pow(1 / n)
    size: Tensor = torch.linalg.vector_norm(normal, dim=1, keepdim=True)
    return (length * normal / size).float()


def pixel_words(n: int, norm: Norm) -> int:
    """Return the number of words that a perturbation of n entries needs."""
    return n if norm == "linf" else 1 + 2 * n


def uniform(
    seed: int,
    indices: Sequence[int],
    tensor: int,
    count: int,
    *,
    epoch: int,
    device: torch.device,
) -> Tensor:
    """Return the first numbers of each sample's stream: (batch, count), float64 in [0, 1)."""
    raw = words(seed, indices, tensor, count, epoch=epoch, device=device)
    return ((raw >> 11) & (2**53 - 1)).double() * 2.0**-53


def words(
    seed: int,
    indices: Sequence[int],
    tensor: int,
    count: int,
    *,
    epoch: int,
    device: torch.device,
) -> Tensor:
    """Return the first words of each sample's stream: (batch, count), int64.

    They have the bits of the uint64 words of jataug.streams.words.

    Raises:
        BudgetError: a number does not fit an unsigned 64-bit word.
    """
    for index in indices:
        streams.check_key(seed=seed, index=index, epoch=epoch)
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
    """Return the high and low word of an unsigned 128-bit product. int64 multiplication wraps."""
    high, low = multiplier >> 32, multiplier & _HALF
    value_high, value_low = _upper(value), value & _HALF
    middle = high * value_low + _upper(low * value_low)
    other = low * value_high + (middle & _HALF)
    return high * value_high + _upper(middle) + _upper(other), value * _signed(multiplier)


def _upper(value: Tensor) -> Tensor:
    return (value >> 32) & _HALF


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
