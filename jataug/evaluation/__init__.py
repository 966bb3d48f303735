"""How robust a model is: attacks on its gradient, curves, sanity checks, and a report."""

from .evaluate import evaluate
from .report.contents import Report, load_report, schema

__all__ = ["Report", "evaluate", "load_report", "schema"]
