"""Derivative rules, by family; importing the package fills the table."""

from . import convolution, elementwise, layout, linear, pooling, reduction
from .table import FLAT, Rule, find_rule, has_rule, rule

__all__ = [
    "FLAT",
    "Rule",
    "convolution",
    "elementwise",
    "find_rule",
    "has_rule",
    "layout",
    "linear",
    "pooling",
    "reduction",
    "rule",
]
