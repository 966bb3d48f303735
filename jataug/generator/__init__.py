"""Adversarial data sets: generate them, verify them, open them, look at them."""

from ..dataset.open import Dataset, StoredSample, open_dataset
from ..dataset.verify.verify import VerifyReport, verify
from ..drawing.grid import Guess, Row, draw
from .generate import generate, generate_all
from .preview import preview
from .report import Estimate, Progress, Report, Skip

__all__ = [
    "Dataset",
    "Estimate",
    "Guess",
    "Progress",
    "Report",
    "Row",
    "Skip",
    "StoredSample",
    "VerifyReport",
    "draw",
    "generate",
    "generate_all",
    "open_dataset",
    "preview",
    "verify",
]
