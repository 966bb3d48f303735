"""Ops that onnx's own evaluator computes wrongly, or to too few digits."""

import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_grid_sample import GridSample as _GridSample

__all__ = ["EVALUATORS"]


class Erf(OpRun):
    """onnx's own is a polynomial of eight digits."""

    op_domain = ""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


class Gelu(OpRun):
    """onnx's own calls its own Erf."""

    op_domain = ""

    def _run(self, x: np.ndarray, approximate: str = "none") -> tuple[np.ndarray]:
        if approximate == "tanh":
            cdf = 0.5 + 0.5 * np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        else:
            cdf = 0.5 + 0.5 * np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2))
        return (x * cdf,)


class GroupNormalization(OpRun):
    """onnx's own takes the statistics in float32, too coarse for differences."""

    op_domain = ""

    def _run(
        self,
        x: np.ndarray,
        scale: np.ndarray,
        bias: np.ndarray,
        epsilon: float,
        num_groups: int,
        stash_type: int,
    ) -> tuple[np.ndarray]:
        grouped = x.reshape(len(x), num_groups, -1)
        deviation = np.sqrt(grouped.var(axis=2, keepdims=True) + epsilon)
        normalized = (grouped - grouped.mean(axis=2, keepdims=True)) / deviation
        channels = (-1, *[1] * (x.ndim - 2))
        return (normalized.reshape(x.shape) * scale.reshape(channels) + bias.reshape(channels),)


class LRN(OpRun):
    """onnx's own normalizes as many channels as there are images."""

    op_domain = ""

    def _run(
        self, x: np.ndarray, alpha: float, beta: float, bias: float, size: int
    ) -> tuple[np.ndarray]:
        total = np.zeros_like(x)
        for c in range(x.shape[1]):
            nearby = x[:, max(c - (size - 1) // 2, 0) : c + size // 2 + 1]
            total[:, c] = (nearby**2).sum(axis=1)
        return (x / (bias + alpha / size * total) ** beta,)


class LpNormalization(OpRun):
    """onnx's own sums without absolute values."""

    op_domain = ""

    def _run(self, x: np.ndarray, axis: int, p: int) -> tuple[np.ndarray]:
        norm = (np.abs(x) ** p).sum(axis=axis, keepdims=True) ** (1 / p)
        return (np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)),)


class GridSample(_GridSample):
    """onnx's own rounds the places to float32, too coarse for differences, and does not know the
    names of modes before opset 20.
    """

    op_domain = ""

    def _run(self, X: Any, grid: Any, mode: str, **options: Any) -> Any:
        return super()._run(X, grid, mode={"bilinear": "linear"}.get(mode, mode), **options)

    def _gs_denormalize_coordinates(self, n: Any, dims: Any, align_corners: bool) -> np.ndarray:
        found = [self._gs_denormalize(v, d, align_corners) for v, d in zip(n, dims, strict=True)]
        return np.array(found, np.float64)


EVALUATORS = [Erf, Gelu, GridSample, GroupNormalization, LRN, LpNormalization]
