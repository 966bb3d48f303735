"""Generation of adversarial data sets: planned, resumable, with byte-identical output."""

from .generate import generate, generate_all
from .preview import preview
from .report import Estimate, Report, Skip

__all__ = ["Estimate", "Report", "Skip", "generate", "generate_all", "preview"]
