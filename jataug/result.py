"""What an attack returns: the same type from a Session (numpy, or arrays on its CUDA device) and
from the torch JointAttack (torch).
"""

import math
from dataclasses import dataclass
from typing import Any

from .config import AttackConfig
from .errors import DataError

__all__ = ["AttackResult", "check_targeted", "finite_rows", "predictions", "success_and_reached"]


@dataclass(frozen=True, eq=False)
class AttackResult:
    """A finalised batch: every field is measured on exactly the image in `adversarial`.

    Attributes:
        adversarial: (batch, channel, height, width), float32 in [0, 1]; or uint8 in the layout of
            the images, where they came as uint8.
        exact: (batch, channel, height, width), float32; the image before it was quantised. Where
            nothing was quantised it equals `adversarial`; it may be the same array or a copy. It
            meets its budget to float32 precision; an 8-bit image meets it only to half a level.
        flow: (batch, 2, height, width), float16, pixels, (dx, dy); exactly the flow that
            `adversarial` was rendered with.
        delta: (batch, channel, height, width), float32, image units: adversarial - T(image, flow)
            for the composition "spatial-pixel", the perturbation before the warp for
            "pixel-spatial".
        loss: (batch,), float32; the objective that the last update of an iteration ascends.
        logits: (batch, classes), float32.
        success: (batch,), bool; the prediction differs from the label. A failed image is none.
        label: (batch,), int64; the ground truth, or the model's own prediction where none was
            given.
        target: (batch,), int64; the adversarial-generation label.
        failed: (batch,), bool; the logits of the clean image or of the adversarial one were not
            finite, and `adversarial` is the clean image.
        reached: (batch,), bool; the prediction is the target. A failed image is none. None where
            no objective depends on the targets.
    """

    adversarial: Any
    exact: Any
    flow: Any
    delta: Any
    loss: Any
    logits: Any
    success: Any
    label: Any
    target: Any
    failed: Any
    reached: Any = None

    @property
    def prediction(self) -> Any:
        """(batch,), int64; the class of the highest logit, -1 where the logits are not finite."""
        return predictions(self.logits)


def finite_rows(logits: Any) -> Any:
    """Return which rows of logits (batch, classes) are finite throughout: (batch,), bool.

    Numpy and torch alike, as all functions here.
    """
    return (abs(logits) < math.inf).all(-1)


def predictions(logits: Any) -> Any:
    """Return the class of the highest logit, -1 where the logits are not finite: (batch,), int64.

    -1 is no class: such an image is classified as no label, and no attack on it succeeds.
    """
    return (logits.argmax(-1) + 1) * finite_rows(logits) - 1


def success_and_reached(
    config: AttackConfig, logits: Any, label: Any, target: Any, failed: Any
) -> tuple[Any, Any]:
    """Return the fields `success` and `reached` of a result.

    Args:
        config: says whether the targets matter.
        logits: (batch, classes), of the images that are returned.
        label: (batch,), int64.
        target: (batch,), int64.
        failed: (batch,), bool.
    """
    found = predictions(logits)
    reached = (found == target) & ~failed if config.targeted else None
    return (found != label) & ~failed, reached


def check_targeted(config: AttackConfig) -> None:
    """Refuse targets for an attack whose objectives do not depend on them.

    Raises:
        DataError: no branch that is on has the objective "target" or "margin".
    """
    if not config.targeted:
        raise DataError(
            'targets: this attack ignores them, as its objectives are "truth"; leave targets out, '
            'or use an attack with the flow or pixel objective "target" or "margin"'
        )
