"""The preprocessing of a model, between an image in [0, 1] and the network."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from .budget import FLOAT32_MAX
from .errors import ModelError

__all__ = ["Preprocessing"]

_LEVELS = 10
"""A larger mean is one of 8-bit levels, not of images in [0, 1]."""

Layout = Literal["nchw", "nhwc"]
Channels = Literal["rgb", "bgr"]
Outputs = Literal["logits", "probabilities"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The network sees (image * scale - mean) / std, with image in [0, 1].

    Args:
        mean: one number, or one per channel in RGB order, in the unit of image * scale.
        std: one number, or one per channel in RGB order, in the unit of image * scale.
        scale: 1 for models of images in [0, 1], 255 for models of values from 0 to 255.
        layout: "nchw", or "nhwc" as in TensorFlow and Keras.
        channels: "rgb", or "bgr" as in Caffe and OpenCV.
        logits: name of the output (or inner value) that holds the logits. Defaults to the only
            output.
        outputs: what that output holds: "logits", or "probabilities", for which the attack uses
            the values before the softmax. None means "logits", but the export then raises an
            error if a softmax, a sigmoid or the like makes the output.

    Raises:
        ModelError: a number is not finite, a std is 0, a mean is of 8-bit levels but the scale is
            1, or a word is unknown.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0
    layout: Layout = "nchw"
    channels: Channels = "rgb"
    logits: str | None = None
    outputs: Outputs | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(getattr(self, name), name))
        object.__setattr__(self, "scale", _numbers(self.scale, "scale")[0])
        if not self.scale or min(self.std) <= 0:
            raise ModelError("preprocessing: expected a std above 0 and a scale other than 0")
        if self.scale == 1 and (beyond := max(self.mean)) > _LEVELS:
            raise ModelError(
                f"mean: {beyond:g} is too large for images in [0, 1]; for a mean of 8-bit levels "
                "use scale 255 (--scale 255)"
            )
        for name, choices in (("layout", Layout), ("channels", Channels), ("outputs", Outputs)):
            value = getattr(self, name)
            if value not in get_args(choices) and not (name == "outputs" and value is None):
                expected = " or ".join(get_args(choices))
                raise ModelError(f"{name}: expected {expected}, got {value!r}")

    def check_channels(self, channels: int) -> None:
        """Raise ModelError if mean or std do not fit a model with this many channels."""
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, channels):
                expected = "1 number" if channels == 1 else f"1 or {channels} numbers"
                raise ModelError(
                    f"{name}: expected {expected} (the model's channels), got "
                    f"{len(getattr(self, name))}"
                )

    def determined(self) -> Self:
        """Return a copy in which outputs that were None are "logits", for an accepted model."""
        return dataclasses.replace(self, outputs=self.outputs or "logits")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    def to_options(self) -> dict[str, str]:
        """Return the command-line options that differ from the defaults.

        An example is {"mean": "0.5,0.4,0.3", "scale": "255"}. The outputs "logits" count as a
        default.
        """
        default = type(self)(outputs=None if self.outputs is None else "logits")
        return {
            field.name: _typed(value)
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != getattr(default, field.name)
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the preprocessing that `to_dict` wrote."""
        return cls(**data)


def _typed(value: float | tuple[float, ...] | str) -> str:
    if isinstance(value, str):
        return value
    numbers = value if isinstance(value, tuple) else (value,)
    return ",".join(repr(number).removesuffix(".0") for number in numbers)


def _numbers(value: float | Sequence[float], name: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(v) for v in value) if isinstance(value, Sequence) else (float(value),)
    except (TypeError, ValueError):
        raise ModelError(f"{name}: expected numbers, got {value!r}") from None
    if not numbers or not all(abs(number) <= FLOAT32_MAX for number in numbers):
        raise ModelError(f"{name}: expected finite numbers, got {value!r}")
    return numbers
