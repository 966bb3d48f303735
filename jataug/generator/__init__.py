"""Generation of adversarial data sets: planned, resumable, with byte-identical output."""

from .generate import generate
from .generate_report import Estimate, Report, Skip
from .preview import preview

__all__ = ["Estimate", "Report", "Skip", "generate", "preview"]
