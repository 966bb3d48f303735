"""AutoAttack (Croce and Hein, ICML 2020) from its public package, to check our own attacks."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ...errors import BudgetError, MissingExtra, ModelError
from ..models.model import Array, Calls, Model
from .best_found import Best, View
from .perturbation import Context
from .tries import Rows

if TYPE_CHECKING:
    from torch import nn

__all__ = ["AutoAttack"]


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """The package pyautoattack, linf, on the model as a torch module.

    Attributes:
        version: "standard", or another version of the package.
    """

    version: str = "standard"
    needs_gradient: ClassVar[bool] = True
    targets: ClassVar[int] = 0
    tries: ClassVar[int] = 1
    threat: ClassVar[Literal["pixel"]] = "pixel"
    composition: ClassVar[Literal["spatial-pixel"]] = "spatial-pixel"

    def parameters(self) -> dict[str, Any]:
        """Return the parameters for the report's table, as plain JSON types."""
        return {"version": self.version, "package": "pyautoattack"}

    def run(self, calls: Calls, rows: Rows, context: Context) -> Best:
        """Attack every row. All rows need the same radius.

        Raises:
            MissingExtra: torch or pyautoattack is not installed.
            BudgetError: the radii differ, or the norm is not linf.
        """
        try:
            import pyautoattack
            import torch
        except ImportError as error:
            raise MissingExtra(
                f"the attack autoattack needs {error.name}, which is not installed: "
                "pip install 'jataug[torch]' pyautoattack"
            ) from None
        radius = float(rows.pixel[0])
        if context.pixel_norm != "linf" or (rows.pixel != radius).any():
            raise BudgetError("autoattack needs the pixel norm linf and one radius for all images")
        with torch.random.fork_rng():
            attack = pyautoattack.AutoAttack(
                _module(calls.model), eps=radius, seed=context.seed, version=self.version
            )
            others = calls.model.classes - 1
            for part in (attack.apgd_targeted, attack.fab):
                part.n_target_classes = min(part.n_target_classes, others)
            found = attack.run_standard_evaluation(
                torch.from_numpy(rows.image),
                torch.from_numpy(rows.label),
                batch_size=calls.batch_size,
            )
        return _held(calls, rows, found[0].cpu().numpy())


def _module(model: Model) -> "nn.Module":
    module: nn.Module | None = getattr(model, "module", None)
    if module is None:
        raise ModelError("autoattack needs an .onnx file or a torch module as its model")
    return module


def _held(calls: Calls, rows: Rows, image: Array) -> Best:
    """Return the images as a result, after projecting them onto the budget."""
    radius = rows.pixel.reshape(-1, 1, 1, 1)
    image = np.clip(image, np.maximum(rows.image - radius, 0), np.minimum(rows.image + radius, 1))
    best = Best(rows)
    best.offer(np.arange(len(rows)), View(image, None, image - rows.image), calls.logits(image))
    return best
