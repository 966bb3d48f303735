"""Checks, on a few samples, that clean images are those that a data set was made from."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..config import AttackConfig
from ..dataset.verification.budget_checks import BudgetCheck, Pairs
from ..errors import DataError
from .stored import StoredSet

__all__ = ["check_count", "check_origin"]

_LOOKED_AT = 4
"""The number of checked samples, spread over the data set."""


class Clean(Protocol):
    """Gives the clean image of a record: (height, width, channel), uint8."""

    def image(self, record: Mapping[str, Any]) -> NDArray[np.uint8]: ...


def check_count(count: int, stored: StoredSet) -> None:
    """Refuse clean images whose number differs from that of the data set's source.

    Raises:
        DataError: the number differs.
    """
    if count != (wanted := stored.plan["source"]["count"]):
        raise DataError(
            f"clean: expected the {wanted} samples that {stored.root} was made from, in their "
            f"order, got {count}; give its own source"
        )


def check_origin(clean: Clean, stored: StoredSet) -> None:
    """Refuse clean images that the adversarial ones are farther from than their budgets allow. An
    image that cannot be read is left to whoever asks for it.

    Raises:
        DataError: they are of another source, or in another order.
    """
    budgets = BudgetCheck(AttackConfig.from_dict(stored.plan["attack"]), flow_saved=False)
    spread = np.linspace(0, len(stored) - 1, min(_LOOKED_AT, len(stored)))
    for position in map(int, spread):
        try:
            pair = stored.image(position)[None], clean.image(stored.record(position))[None]
        except DataError:
            continue
        for _, problem in budgets.check(Pairs(*pair)):
            raise DataError(
                f"clean: expected the images that {stored.root} was made from, in their order, got "
                f"others: {stored.where(position)}: {problem}; give its own source"
            )
