"""Joint adversarial attacks (flow-field warp and pixels) as ONNX files, and the data sets made with
them.

Importing this package imports numpy and nothing else; what needs more is loaded when it is first
used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .budget import FlowBudget, PixelBudget
from .config import AttackConfig
from .errors import (
    ArtifactError,
    BudgetError,
    CheckError,
    DataError,
    JataugError,
    MissingExtra,
    ModelError,
    RuntimeUnavailable,
    UnsupportedOperator,
)
from .result import AttackResult

if TYPE_CHECKING:
    from .dataset import open_dataset, verify
    from .evaluation.evaluate import evaluate
    from .generator.generate import generate
    from .runtime import Session

__version__ = "0.1.0"

__all__ = [
    "ArtifactError",
    "AttackConfig",
    "AttackResult",
    "BudgetError",
    "CheckError",
    "DataError",
    "FlowBudget",
    "JataugError",
    "MissingExtra",
    "ModelError",
    "PixelBudget",
    "RuntimeUnavailable",
    "Session",
    "UnsupportedOperator",
    "evaluate",
    "generate",
    "open_dataset",
    "verify",
]

_LAZY = {
    "Session": "runtime",
    "evaluate": "evaluation",
    "generate": "generator",
    "open_dataset": "dataset",
    "verify": "dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))
