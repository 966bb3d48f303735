"""Draws a grid of pictures, with the columns clean, flow, perturbation and adversarial."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..errors import DataError
from ..units import radius_255
from . import (
    arrows,
    confidence,
    font_for,
    full_scale,
    lengthening,
    perturbation,
    picture,
    printable,
    shown_size,
)

__all__ = ["Guess", "Row", "draw"]

_MARGIN, _GAP, _TITLE, _HEAD, _LINE = 20, 14, 34, 26, 17
_INK, _FAINT, _RED = "#1b1b1b", "#6b6b6b", "#b3261e"

Caption = tuple[str, str]
"""A text and its colour."""


@dataclass(frozen=True)
class Guess:
    """A model's prediction for an image.

    Attributes:
        name: name of the predicted class.
        confidence: its softmax probability.
        label_confidence: the softmax probability of the true class.
    """

    name: str
    confidence: float
    label_confidence: float


@dataclass(frozen=True, eq=False)
class Row:
    """One image of a preview.

    Attributes:
        clean: (height, width, 1 or 3), uint8.
        adversarial: as `clean`.
        flow: (2, height, width), (dx, dy) in pixels; None if the attack has no flow.
        delta: (1 or 3, height, width), for images in [0, 1].
        label: name of the true class.
        before: the prediction for `clean`.
        after: the prediction for `adversarial`.
        name: name of the image.
    """

    clean: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]
    flow: NDArray[Any] | None
    delta: NDArray[Any]
    label: str
    before: Guess
    after: Guess
    name: str


def draw(rows: Sequence[Row], title: str = "") -> Image.Image:
    """Return a grid with one row per image: clean, flow, perturbation, adversarial.

    The header states the factor of the arrows and the scale of the perturbations, which are the
    same for all rows. Perturbations are drawn from black to white, with no change in mid-grey. All
    images must have the same size, and either all rows have a flow or none has.

    Raises:
        DataError: `rows` is empty.
    """
    if not rows:
        raise DataError("rows: expected at least one image to draw, got none")
    size = shown_size(*rows[0].clean.shape[:2])
    full = full_scale([row.delta for row in rows])
    flows = [row.flow for row in rows if row.flow is not None]
    stretch = lengthening(flows) if flows else None
    heads = ["clean"] + ([] if stretch is None else [f"flow, arrows x{stretch:g}"])
    heads += [f"perturbation +-{radius_255(full)}", "adversarial"]
    page = _Page(len(heads), len(rows), size, title)
    page.heads(heads)
    for number, row in enumerate(rows):
        panels = [picture(row.clean, size)]
        if stretch is not None and row.flow is not None:
            panels.append(arrows(row.clean, row.flow, stretch, size))
        panels.append(picture(perturbation(row.delta, full), size))
        panels.append(picture(row.adversarial, size))
        page.row(number, panels, _captions(row))
    return page.image


def _captions(row: Row) -> list[list[Caption]]:
    columns = [[*_caption(row.before, row.label), (row.name, _FAINT)]]
    if row.flow is not None:
        longest = float(np.hypot(*row.flow.astype(np.float64)).max(initial=0))
        columns.append([(f"longest: {longest:.2f} px", _FAINT)])
    columns.append([(f"largest: {255 * full_scale([row.delta]):.1f}/255", _FAINT)])
    columns.append([*_caption(row.after, row.label), (f"label: {row.label}", _FAINT)])
    return columns


def _caption(guess: Guess, label: str) -> list[Caption]:
    """Return the caption of a prediction with its confidence; red if it is not the label."""
    wrong = guess.name != label
    sure, still = confidence(guess.confidence), confidence(guess.label_confidence)
    return [(guess.name, _RED if wrong else _INK), (sure + (f", label {still}" * wrong), _FAINT)]


class _Page:
    """A white page with a grid of panels, a header above and three lines under each panel."""

    def __init__(self, columns: int, rows: int, size: tuple[int, int], title: str) -> None:
        self._size = size
        self._top = _MARGIN + (_TITLE if title else 0)
        self._block = size[1] + 3 * _LINE + 12
        width = 2 * _MARGIN + columns * (size[0] + _GAP) - _GAP
        height = self._top + _HEAD + rows * self._block + _MARGIN // 2
        self.image = Image.new("RGB", (width, height), "white")
        self._pen = ImageDraw.Draw(self.image)
        self._write((_MARGIN, _MARGIN - 4), title, 18, _INK, width - 2 * _MARGIN)

    def heads(self, names: Sequence[str]) -> None:
        for column, name in enumerate(names):
            self._write((self._left(column), self._top), name, 15, _INK, self._size[0])

    def row(
        self, number: int, panels: Sequence[Image.Image], captions: Sequence[Sequence[Caption]]
    ) -> None:
        top = self._top + _HEAD + number * self._block
        for column, (panel, lines) in enumerate(zip(panels, captions, strict=True)):
            left = self._left(column)
            self.image.paste(panel, (left, top))
            for line, (text, ink) in enumerate(lines):
                place = (left, top + self._size[1] + 4 + line * _LINE)
                self._write(place, text, 13, ink, self._size[0])

    def _left(self, column: int) -> int:
        return _MARGIN + column * (self._size[0] + _GAP)

    def _write(self, place: tuple[int, int], text: str, size: int, ink: str, room: int) -> None:
        """Write one line; if it is too long, its middle is replaced by an ellipsis."""
        font, text = font_for(printable(text), size)
        shown, kept = text, len(text)
        while kept > 2 and self._pen.textlength(shown, font=font) > room:
            kept -= 1
            shown = f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"
        self._pen.text(place, shown, fill=ink, font=font)
