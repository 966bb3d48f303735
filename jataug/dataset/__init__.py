"""Stored adversarial data sets: their schema, one reader, the card, the formats, verification."""

from .counts import Progress, Tally
from .open import Dataset, StoredSample, open_dataset
from .verification.verify import VerifyReport, verify

__all__ = [
    "Dataset",
    "Progress",
    "StoredSample",
    "Tally",
    "VerifyReport",
    "open_dataset",
    "verify",
]
