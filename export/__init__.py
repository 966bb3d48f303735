"""From a classifier to an ONNX attack: differentiation, warp, attack graph, artifact."""

from .build import export_attack
from .check.differentiation import differentiate
from .rules import rule

__all__ = ["differentiate", "export_attack", "rule"]
