"""The outcome of an attack on every image, measured on exactly the images that it found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..finalize import from_levels, quantize
from ..result import finite_rows, predictions
from ..warp import warp
from .attacks.best_found import View
from .attacks.losses import value
from .attacks.tries import Rows
from .models.model import Array, Calls

__all__ = ["Measured", "Outcome", "measure", "measured"]


@dataclass(frozen=True, eq=False)
class Measured:
    """A measured batch. Every field is measured on the image in `view`.

    Attributes:
        view: image, flow and delta.
        logits: (rows, classes), float32.
        prediction: (rows,), int64; -1 where the logits are not finite, which breaks no image.
        loss: (rows,), float64; the cross entropy with the label, NaN where it is not finite.
        broken: (rows,), bool; the prediction is a class other than the label.
        failed: (rows,), bool; the logits were not finite, and `view` shows the clean image.
    """

    view: View
    logits: Array
    prediction: Array
    loss: Array
    broken: Array
    failed: Array


def measure(calls: Calls, rows: Rows, view: View, levels: bool = False) -> Measured:
    """Measure the images of a view, which are quantised first if `levels` is true.

    An image whose logits are not finite stays clean and is measured again, so that no attack on it
    succeeds.
    """
    if levels:
        view = _quantized(rows, view)
    logits = calls.logits(view.image)
    failed = ~finite_rows(logits)
    if failed.any():
        view, logits = view.kept_clean(failed, rows.image), logits.copy()
        logits[failed] = calls.logits(rows.image[failed])
    return measured(rows, view, logits, failed)


def measured(rows: Rows, view: View, logits: Array, failed: Array) -> Measured:
    """Return the measurements of a view's images for logits (rows, classes)."""
    prediction = predictions(logits)
    loss = value("truth", logits, rows.label, rows.label)
    return Measured(
        view,
        logits,
        prediction,
        np.where(prediction < 0, np.nan, loss),
        broken=(prediction != rows.label) & (prediction >= 0),
        failed=failed,
    )


def _quantized(rows: Rows, view: View) -> View:
    """Return the view with its image rounded to 8-bit levels within the pixel radius of T(x, w)."""
    if view.delta is None:
        levels = quantize(view.image, view.image, np.zeros(len(rows), np.float32))
        return View(from_levels(levels), view.flow, None)
    ground = rows.image if view.flow is None else warp(rows.image, view.flow)
    return View(from_levels(quantize(view.image, ground, rows.pixel)), view.flow, view.delta)


@dataclass(frozen=True, eq=False)
class Outcome:
    """The outcome of one attack on all images.

    Attributes:
        prediction: (images,), int64.
        loss: (images,), float64, NaN where it is not finite.
        broken: (images,), bool; the prediction is a class other than the label.
        failed: (images,), bool; the attacked image had logits that were not finite, so all other
            fields are those of the clean image.
        seconds, forwards, gradients: totals.
        largest_delta, longest_flow: the largest over the attacked images.
        gallery: "image", "flow", "delta" and "logits" of the images of the gallery, in order.
        transfer: predictions (images,) by the position of another model.
    """

    prediction: Array
    loss: Array
    broken: Array
    failed: Array
    seconds: float
    forwards: int
    gradients: int
    largest_delta: float
    longest_flow: float
    gallery: Mapping[str, Array]
    transfer: Mapping[str, Array]

    def arrays(self) -> dict[str, Array]:
        """Return all fields as arrays; `from_arrays` reads them back."""
        plain = {
            name: np.asarray(value)
            for name, value in vars(self).items()
            if name not in ("gallery", "transfer")
        }
        nested = {
            f"{name}/{key}": array
            for name in ("gallery", "transfer")
            for key, array in getattr(self, name).items()
        }
        return {**plain, **nested}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Self:
        """Return the outcome for arrays that `arrays` returned."""
        nested: dict[str, dict[str, Array]] = {"gallery": {}, "transfer": {}}
        for name, array in arrays.items():
            if "/" in name:
                group, _, key = name.partition("/")
                nested[group][key] = array
        return cls(
            arrays["prediction"],
            arrays["loss"],
            arrays["broken"],
            arrays["failed"],
            forwards=int(arrays["forwards"]),
            gradients=int(arrays["gradients"]),
            seconds=float(arrays["seconds"]),
            largest_delta=float(arrays["largest_delta"]),
            longest_flow=float(arrays["longest_flow"]),
            gallery=nested["gallery"],
            transfer=nested["transfer"],
        )
