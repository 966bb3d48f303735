"""Joins the results of several calls, and makes the result of an empty batch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jataug.result import AttackResult

from .inputs import Images

__all__ = ["joined", "no_results"]


def joined(
    results: Sequence[AttackResult], join: Callable[[Any], Any] = np.concatenate
) -> AttackResult:
    """Return the results of consecutive batches as one.

    Args:
        results: of the batches, in order.
        join: concatenates a list of arrays; numpy's, or that of the arrays' own library.
    """
    if len(results) == 1:
        return results[0]
    columns = zip(*(vars(result).values() for result in results), strict=True)
    return AttackResult(*(None if column[0] is None else join(column) for column in columns))


def no_results(images: Images, classes: int, targeted: bool) -> AttackResult:
    """Return the result of an empty batch."""
    channel, height, width = images.pixels.shape[1:]
    empty = np.zeros((0, channel, height, width), np.float32)
    levels = np.zeros((0, height, width, channel), np.uint8)
    whole, mask = np.zeros(0, np.int64), np.zeros(0, bool)
    return AttackResult(
        levels if images.eight_bit else empty,
        empty,
        np.zeros((0, 2, height, width), np.float16),
        empty,
        np.zeros(0, np.float32),
        np.zeros((0, classes), np.float32),
        mask,
        whole,
        whole,
        mask,
        mask if targeted else None,
    )
