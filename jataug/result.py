"""The result of an attack. A Session (numpy or CUDA arrays) and the torch JointAttack share it."""

import math
from dataclasses import dataclass
from typing import Any

from .config import AttackConfig
from .errors import DataError

__all__ = ["AttackResult", "check_targeted", "finite_rows", "predictions", "success_and_reached"]


@dataclass(frozen=True, eq=False)
class AttackResult:
    """A batch of adversarial images. All fields are measured on the images in `adversarial`.

    Attributes:
        adversarial: (batch, channel, height, width), float32 in [0, 1]; or uint8 in the layout of
            the input, if the input is uint8.
        exact: (batch, channel, height, width), float32; the images before quantisation, which
            equal `adversarial` if that is float32 (the same array or a copy). They keep the budget
            up to float32 rounding; 8-bit images keep it up to half a level.
        flow: (batch, 2, height, width), float16, (dx, dy) in pixels; the flow that `adversarial`
            was rendered with.
        delta: (batch, channel, height, width), float32, for images in [0, 1]: adversarial -
            T(image, flow) for the composition "spatial-pixel", the perturbation before the warp
            for "pixel-spatial".
        loss: (batch,), float32; the objective that the last update of an iteration ascends.
        logits: (batch, classes), float32.
        success: (batch,), bool; whether the prediction differs from the label. False for a failed
            image.
        label: (batch,), int64; the given labels, or the model's own predictions.
        target: (batch,), int64; the target classes.
        failed: (batch,), bool; whether the logits of the clean or of the adversarial image are not
            finite. `adversarial` is then the clean image.
        reached: (batch,), bool; whether the prediction is the target. False for a failed image.
            The field is None if no objective depends on the targets.
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
        """The class of the highest logit, -1 if the logits are not finite: (batch,), int64."""
        return predictions(self.logits)


def finite_rows(logits: Any) -> Any:
    """Return whether all logits of each row (batch, classes) are finite: (batch,), bool.

    All functions of this module take numpy arrays and torch tensors.
    """
    return (abs(logits) < math.inf).all(-1)


def predictions(logits: Any) -> Any:
    """Return the class of the highest logit, -1 if the logits are not finite: (batch,), int64.

    -1 equals no label, so such an image is never classified correctly.
    """
    return (logits.argmax(-1) + 1) * finite_rows(logits) - 1


def success_and_reached(
    config: AttackConfig, logits: Any, label: Any, target: Any, failed: Any
) -> tuple[Any, Any]:
    """Return the fields `success` and `reached` of a result.

    Args:
        config: the attack, which decides whether targets matter.
        logits: logits of the returned images, (batch, classes).
        label: (batch,), int64.
        target: (batch,), int64.
        failed: (batch,), bool.
    """
    found = predictions(logits)
    reached = (found == target) & ~failed if config.targeted else None
    return (found != label) & ~failed, reached


def check_targeted(config: AttackConfig) -> None:
    """Check that the objectives of an attack depend on targets.

    Raises:
        DataError: no active branch has the objective "target" or "margin".
    """
    if not config.targeted:
        raise DataError(
            'targets: this attack ignores them, because its objectives are "truth"; leave targets '
            'out, or use an attack with the flow or pixel objective "target" or "margin"'
        )
