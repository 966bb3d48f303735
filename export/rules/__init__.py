"""Derivative rules, one module per family of ops. Importing the package fills the table."""

from . import (
    convolution,
    elementwise,
    indexing,
    layout,
    linear,
    normalization,
    padding,
    pooling,
    quantised,
    reduction,
    resize,
    sampling,
)
from .table import FLAT, Rule, custom_rules, find_rule, has_rule, rule

__all__ = [
    "FLAT",
    "Rule",
    "convolution",
    "custom_rules",
    "elementwise",
    "find_rule",
    "has_rule",
    "indexing",
    "layout",
    "linear",
    "normalization",
    "padding",
    "pooling",
    "quantised",
    "reduction",
    "resize",
    "rule",
    "sampling",
]
