"""Random joint augmentation in numpy: a flow and a perturbation inside their budgets, no model."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config import AttackConfig
from ..errors import BudgetError, DataError
from ..finalize import finalize, from_levels, project, quantize

__all__ = ["as_config", "check_floats", "drawn", "rendered", "streamed"]

Array = NDArray[Any]

_AT_ONCE = 1 << 17
"""The most entries of a batch that are processed at a time, so that they fit the cache."""


def as_config(value: AttackConfig | Mapping[str, Any]) -> AttackConfig:
    """Return a configuration, or the one that its `to_dict` gave, that changes images.

    Raises:
        BudgetError: it is something else, or has no random start, so that nothing would change.
    """
    config = AttackConfig.from_dict(value) if isinstance(value, Mapping) else value
    if not isinstance(config, AttackConfig):
        raise BudgetError(f"config: expected an AttackConfig, got {type(config).__name__}")
    if config.start != "random":
        raise BudgetError(f"start: expected random for steps=0, got {config.start}")
    return config


def check_floats(images: Array, where: str = "images") -> None:
    """Refuse float images (batch, ...) that are not finite or leave [0, 1], and name the first."""
    inside = ((images >= 0) & (images <= 1)).reshape(len(images), -1).all(axis=1)
    if not inside.all():
        at = int(np.logical_not(inside).argmax())
        raise DataError(f"{where}: expected finite values in [0, 1], image {at} has others")


def streamed(
    images: Array, indices: Sequence[int], config: AttackConfig, seed: int, epoch: int
) -> Array:
    """Return what an attack of no steps returns, drawn from (seed, epoch, sample index).

    Args:
        images: (batch, channel, height, width), float32 in [0, 1]; or (batch, height, width,
            channel), uint8.
        indices: of the samples.
        config: budgets, norms and composition.
        seed: see docs/streams.md.
        epoch: likewise.
    """
    from ..runtime.task import Task, start_state

    out = np.empty_like(images, order="C")
    step = max(1, _AT_ONCE // max(1, images[0].size)) if len(images) else 1
    for first in range(0, len(images), step):
        part = slice(first, first + step)
        planes = as_planes(images[part])
        none = np.zeros(len(planes), np.int64)
        flow = np.full(len(planes), config.flow.radius, np.float32)
        pixel = np.full(len(planes), config.pixel.radius, np.float32)
        task = Task(planes, none, none, flow, pixel, indices[part], seed, epoch)
        out[part] = rendered(images[part], planes, *start_state(task, config), config)
    return out


def drawn(images: Array, config: AttackConfig, rng: np.random.Generator) -> Array:
    """Return images with flow and perturbation drawn from `rng`; images as for `streamed`."""
    planes = as_planes(images)
    batch, _, height, width = planes.shape
    flow = _flow(rng, (batch, 2, height, width), config) if config.flow.radius else None
    delta = _delta(rng, planes.shape, config) if config.pixel.radius else None
    return rendered(images, planes, flow, delta, config)


def rendered(
    images: Array, planes: Array, flow: Array | None, delta: Array | None, config: AttackConfig
) -> Array:
    """Return images of the type and layout of `images`, warped and perturbed."""
    flow_radius = np.full(len(planes), config.flow.radius, np.float32)
    pixel_radius = np.full(len(planes), config.pixel.radius, np.float32)
    exact, warped, _, _ = finalize(planes, flow, delta, flow_radius, pixel_radius, config)
    return quantize(exact, warped, pixel_radius) if images.dtype == np.uint8 else exact


def as_planes(images: Array) -> Array:
    """Return (batch, channel, height, width), float32 in [0, 1]."""
    if images.dtype == np.uint8:
        return from_levels(images)
    return np.ascontiguousarray(images, np.float32)


def _flow(rng: np.random.Generator, shape: tuple[int, ...], config: AttackConfig) -> Array:
    u, radius = rng.random(shape, np.float32), np.float32(config.flow.radius)
    if config.flow.norm == "linf":
        return radius * (2 * u - 1)
    length, angle = np.sqrt(u[:, 0]), np.float32(2 * np.pi) * u[:, 1]
    flow = np.stack([length * np.cos(angle), length * np.sin(angle)], axis=1) * radius
    return project(flow, np.full(shape[0], radius), "l2", (1,))


def _delta(rng: np.random.Generator, shape: tuple[int, ...], config: AttackConfig) -> Array:
    radius = np.float32(config.pixel.radius)
    if config.pixel.norm == "linf":
        return radius * (2 * rng.random(shape, np.float32) - 1)
    normal = rng.standard_normal(shape, np.float32)
    length = np.sqrt(np.square(normal).sum(axis=(1, 2, 3), keepdims=True))
    share = rng.random((shape[0], 1, 1, 1)) ** (1 / np.prod(shape[1:]))
    return np.asarray(radius * share * normal / length, np.float32)
