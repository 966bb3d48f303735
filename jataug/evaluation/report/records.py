"""Records of images in a report: shares of them, each one, and the few in the gallery."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...errors import DataError

__all__ = ["Gallery", "GalleryImage", "GalleryView", "ImageRow", "Rate"]

_Z = 1.959963984540054
"""The 97.5% quantile of the normal distribution: intervals are two-sided, 95%."""


@dataclass(frozen=True)
class Rate:
    """A share of images, with its Wilson score interval (95%).

    Attributes:
        correct: images counted.
        total: of so many.
        value: correct / total.
        low: the interval's lower end.
        high: its upper end.
    """

    correct: int
    total: int
    value: float
    low: float
    high: float

    @classmethod
    def from_counts(cls, correct: int, total: int) -> "Rate":
        """Return `correct` of `total` with its interval (Wilson 1927).

        Raises:
            DataError: there is no image.
        """
        if not 0 <= correct <= total or total < 1:
            raise DataError(f"rate: expected 0 <= correct <= total >= 1, got {correct} of {total}")
        share, z = correct / total, _Z * _Z / total
        centre = (share + z / 2) / (1 + z)
        half = _Z * math.sqrt(share * (1 - share) / total + z / (4 * total)) / (1 + z)
        low = 0.0 if correct == 0 else max(0.0, centre - half)
        high = 1.0 if correct == total else min(1.0, centre + half)
        return cls(correct, total, share, low, high)


@dataclass(frozen=True)
class ImageRow:
    """One image.

    Attributes:
        index: position in the source.
        key: its name in the source.
        label: the ground truth, in the model's numbering.
        clean_prediction: of the image as it is; -1 where the logits are not finite.
        broken_by: the first attack, in the order of the table, that changed a right answer;
            "clean" where it was wrong without one; None where all failed.
        broken: every attack that did.
        loss: cross entropy by attack, None where it is not finite.
        prediction: by attack.
        pixel_radius: the smallest pixel radius found to break it, or None.
        flow_radius: the smallest flow radius, or None.
    """

    index: int
    key: str
    label: int
    clean_prediction: int
    broken_by: str | None
    broken: Sequence[str]
    loss: Mapping[str, float | None]
    prediction: Mapping[str, int]
    pixel_radius: float | None
    flow_radius: float | None


@dataclass(frozen=True)
class GalleryView:
    """One attack on one image of the gallery.

    Attributes:
        confidence: softmax of the prediction.
        label_confidence: softmax of the label.
        largest_delta: of the perturbation, image units.
        longest_flow: pixels.
    """

    prediction: int
    confidence: float
    label_confidence: float
    largest_delta: float
    longest_flow: float


@dataclass(frozen=True)
class GalleryImage:
    """One image of the gallery: row `position` of every array in the gallery's file."""

    position: int
    index: int
    key: str
    label: int
    clean: GalleryView
    attacks: Mapping[str, GalleryView]


@dataclass(frozen=True)
class Gallery:
    """A few images under every attack.

    Attributes:
        file: an .npz file beside report.json. It holds "clean" (k, channel, height, width), float32
            in [0, 1], "index" (k,), and for every attack "<name>.adversarial" like "clean",
            "<name>.delta" float32, image units, and "<name>.flow" float16 (k, 2, height, width),
            pixels, (dx, dy). An attack that does not break an image shows its best attempt.
    """

    file: str
    images: Sequence[GalleryImage]
