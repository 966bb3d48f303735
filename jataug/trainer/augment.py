"""Random crop and flip: functions of (seed, epoch, sample index) alone, computed on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .. import streams

__all__ = ["AUGMENT", "augment"]

AUGMENT = 16
"""The tensor id of this stream (docs/streams.md); 1 to 3 are the attack's."""


def augment(
    images: Tensor, indices: Sequence[int], *, seed: int, epoch: int, pad: int, flip: bool
) -> Tensor:
    """Return each image moved by at most `pad` pixels, zeros coming in, and flipped or not.

    Of a sample's three words the first two choose the crop, each uniform over 0 ... 2 pad, and the
    third flips the image left to right where it is below one half.

    Args:
        images: (batch, channel, height, width), any type, on any device.
        indices: (batch,), the samples' indices.
        seed: with `epoch` and the index, what names the stream.
        epoch: see `seed`.
        pad: pixels; 0 moves nothing.
        flip: whether images are flipped.
    """
    if not pad and not flip:
        return images
    height, width = images.shape[2:]
    raw = [streams.words(seed, index, AUGMENT, 3, epoch=epoch).tolist() for index in indices]
    unit = torch.tensor([[(word >> 11) * 2.0**-53 for word in row] for row in raw]).double()
    offset = (unit[:, :2] * (2 * pad + 1)).floor().long().to(images.device)
    rows = offset[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(len(images), width)
    if flip:
        turned = (unit[:, 2:] < 0.5).to(images.device)
        columns = torch.where(turned, columns.flip(1), columns)
    columns = offset[:, 1:] + columns
    padded = functional.pad(images, (pad, pad, pad, pad))
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    # The channels come last when index arrays surround a slice.
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
