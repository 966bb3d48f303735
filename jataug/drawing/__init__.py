"""Pictures of an attack: images, perturbations, flows, and the text beside them."""

from .panels import (
    Arrow,
    arrow_list,
    arrows,
    dimmed,
    full_scale,
    lengthening,
    perturbation,
    picture,
    shown_size,
)
from .text import Font, confidence, font_for, printable

__all__ = [
    "Arrow",
    "Font",
    "arrow_list",
    "arrows",
    "confidence",
    "dimmed",
    "font_for",
    "full_scale",
    "lengthening",
    "perturbation",
    "picture",
    "printable",
    "shown_size",
]
