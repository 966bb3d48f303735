"""What an attack returns: the same type from a Session (numpy, or arrays on its CUDA device) and
from the torch JointAttack (torch).
"""

from dataclasses import dataclass
from typing import Any

__all__ = ["AttackResult"]


@dataclass(frozen=True, eq=False)
class AttackResult:
    """A finalised batch: every field is measured on exactly the image in `adversarial`.

    Attributes:
        adversarial: (batch, channel, height, width), float32 in [0, 1]; or uint8 in the layout of
            the images, where they came as uint8.
        exact: (batch, channel, height, width), float32; the image before it was quantised,
            `adversarial` itself where it
            was not. It meets its budget to float32, where an 8-bit image can only meet it to half a
            level.
        flow: (batch, 2, height, width), float16, pixels, (dx, dy); exactly the flow that
            `adversarial` was rendered with.
        delta: (batch, channel, height, width), float32, image units: adversarial - T(image, flow)
            for the composition
            "spatial-pixel", the perturbation before the warp for "pixel-spatial".
        loss: (batch,), float32; the objective that the last update of an iteration ascends.
        logits: (batch, classes), float32.
        success: (batch,), bool; the prediction differs from the label.
        label: (batch,), int64; the ground truth, or the model's own prediction where none was
            given.
        target: (batch,), int64; the adversarial-generation label.
        failed: (batch,), bool; the logits were not finite, and `adversarial` is the clean image.
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

    @property
    def prediction(self) -> Any:
        """(batch,), int64; the class of the highest logit."""
        return self.logits.argmax(-1)
