"""The single pictures of a gallery: an image, a perturbation, a flow field."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = [
    "Arrow",
    "arrow_list",
    "arrows",
    "dimmed",
    "full_scale",
    "lengthening",
    "perturbation",
    "picture",
    "shown_size",
]

Pixels = NDArray[np.uint8]
Size = tuple[int, int]

_SMALL, _LARGE = 168, 224
_ARROW, _NIGHT = "#ffd54a", "#10131a"
_ARROWS = 14
"""Arrows along the longer side; more run into each other."""


class Arrow(NamedTuple):
    """A flow vector at a pixel's centre, lengthened; all in pixels of the image."""

    x: float
    y: float
    dx: float
    dy: float


def shown_size(height: int, width: int) -> Size:
    """Return the (width, height) at which an image is shown: small ones enlarged, large ones
    reduced.
    """
    longer = max(height, width)
    if longer > _LARGE:
        return max(1, width * _LARGE // longer), max(1, height * _LARGE // longer)
    times = -(-_SMALL // longer)
    return width * times, height * times


def picture(image: Pixels, size: Size) -> Image.Image:
    """Return an image (height, width, 1 or 3), uint8, at a size."""
    shown = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("RGB")
    # Small images are shown pixel by pixel; interpolation would hide what changed.
    how = Image.Resampling.NEAREST if size[0] >= shown.width else Image.Resampling.LANCZOS
    return shown.resize(size, how)


def full_scale(deltas: Sequence[NDArray[Any]]) -> float:
    """Return the size of the largest change, image units: what is drawn black or white."""
    return max((float(np.abs(delta).max(initial=0)) for delta in deltas), default=0.0)


def perturbation(delta: NDArray[Any], full: float) -> Pixels:
    """Return a perturbation (channel, height, width), image units, as (height, width, channel),
    uint8: -full is black, no change mid-grey, +full white.
    """
    share = delta.astype(np.float64) / full if full > 0 else np.zeros(delta.shape)
    levels = np.rint(np.clip(127.5 + 127.5 * share, 0, 255)).astype(np.uint8)
    return levels.transpose(1, 2, 0)


def lengthening(flows: Sequence[NDArray[Any]]) -> float:
    """Return the factor that makes the longest vector about as long as the arrows are apart."""
    longest = max(float(np.hypot(*flow.astype(np.float64)).max(initial=0)) for flow in flows)
    spacing = _spacing(flows[0])
    return float(max(1, round(0.95 * spacing / longest))) if longest > 0 else 1.0


def arrow_list(flow: NDArray[Any], stretch: float) -> list[Arrow]:
    """Return a flow (2, height, width), pixels, (dx, dy), as arrows on an even grid, from each
    pixel to where it reads from, `stretch` times as long as they are.
    """
    step = _spacing(flow)
    rows, columns = (range(step // 2, extent, step) for extent in flow.shape[1:])
    return [
        Arrow(x + 0.5, y + 0.5, *(float(value) * stretch for value in flow[:, y, x]))
        for y in rows
        for x in columns
    ]


def dimmed(image: Pixels, size: Size) -> Image.Image:
    """Return an image as the dark background of arrows."""
    panel = picture(image, size).convert("L").convert("RGB")
    return Image.blend(panel, Image.new("RGB", size, _NIGHT), 0.72)


def arrows(image: Pixels, flow: NDArray[Any], stretch: float, size: Size) -> Image.Image:
    """Return arrow_list(flow, stretch) drawn over the image (height, width, channel), uint8."""
    # Drawn at twice the size and reduced: Pillow's lines are not antialiased.
    large = dimmed(image, size).resize((2 * size[0], 2 * size[1]))
    pen, scale = ImageDraw.Draw(large), 2 * size[0] / flow.shape[2]
    for arrow in arrow_list(flow, stretch):
        x, y, dx, dy = (scale * value for value in arrow)
        _arrow(pen, (x, y), (dx, dy))
    return large.resize(size, Image.Resampling.LANCZOS)


def _spacing(flow: NDArray[Any]) -> int:
    return max(1, round(int(max(flow.shape[1:])) / _ARROWS))


def _arrow(pen: ImageDraw.ImageDraw, tail: tuple[float, float], way: tuple[float, float]) -> None:
    length = float(np.hypot(*way))
    if length < 2:
        pen.ellipse([tail[0] - 2, tail[1] - 2, tail[0] + 2, tail[1] + 2], fill=_ARROW)
        return
    tip = np.array(tail) + way
    along = np.array(way) / length * min(9.0, length / 2)
    across = 0.55 * np.array([-along[1], along[0]])
    pen.line([tail, _point(tip)], fill=_ARROW, width=3)
    head = [tip, tip - along + across, tip - along - across]
    pen.polygon([_point(corner) for corner in head], fill=_ARROW)


def _point(place: NDArray[Any]) -> tuple[float, float]:
    return float(place[0]), float(place[1])
