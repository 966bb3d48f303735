"""The backward bilinear warp in torch. At kinks its derivative is the right-sided one."""

import torch
from torch import Tensor

__all__ = ["warp"]


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Return T(x, w)(p) = x(p + w(p)), coordinates clamped to the image.

    Zero flow is the identity, bit for bit. At whole pixels the derivative with respect to the flow
    is that of the cell to the right (below). It is 0 beyond the border, and on the far border it is
    that of the last cell inside.

    Args:
        image: (batch, channel, height, width), floating.
        flow: (batch, 2, height, width), pixels, (dx, dy), in the dtype of `image`. All channels
            share it.
    """
    whole = _cell(flow.detach())
    fraction = flow - whole
    dx, dy = whole.long().unbind(1)
    horizontal, vertical = fraction[:, :1], fraction[:, 1:]
    # torch.lerp is exact at both ends, and its derivative subtracts pixels before it multiplies.
    upper = torch.lerp(_sample(image, dx, dy), _sample(image, dx + 1, dy), horizontal)
    lower = torch.lerp(_sample(image, dx, dy + 1), _sample(image, dx + 1, dy + 1), horizontal)
    return torch.lerp(upper, lower, vertical)


def _cell(flow: Tensor) -> Tensor:
    # The fraction comes from w and not from p + w, because adding p would drop its low bits.
    whole = flow.floor()
    column, row = _grid(flow)
    far = torch.stack([flow.shape[3] - 1 - column, flow.shape[2] - 1 - row])
    return whole - ((flow == whole) & (whole == far)).to(flow.dtype)


def _grid(like: Tensor) -> tuple[Tensor, Tensor]:
    height, width = like.shape[2:]
    row, column = torch.meshgrid(
        torch.arange(height, device=like.device),
        torch.arange(width, device=like.device),
        indexing="ij",
    )
    return column, row


def _sample(image: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    height, width = image.shape[2:]
    column, row = _grid(image)
    place = (row + dy).clamp(0, height - 1) * width + (column + dx).clamp(0, width - 1)
    return (
        image.flatten(2)
        .gather(2, place.flatten(1)[:, None].expand(*image.shape[:2], -1))
        .view_as(image)
    )
