"""A classifier that is ready to be differentiated."""

from dataclasses import dataclass, field

import onnx_ir as ir

from ..graph.builder import Shape
from ..graph.shapes import Info
from .head import Head
from .reach import straight_through

__all__ = ["Classifier"]


@dataclass(frozen=True)
class Classifier:
    """A folded classifier with every shape known.

    Attributes:
        nodes: the nodes that the outputs need, in topological order.
        image: the input to differentiate with respect to.
        logits: the output to differentiate.
        outputs: all outputs that the prepared model keeps.
        info: type and shape of every value, by name.
        opsets: the version of every domain that the model imports; "" is ai.onnx.
        weights: the inputs that are weights; empty where weights are constants.
        head: the nodes between the logits and the model's output.
    """

    nodes: list[ir.Node]
    image: ir.Value
    logits: ir.Value
    outputs: list[ir.Value]
    info: dict[str, Info]
    opsets: dict[str, int]
    weights: list[ir.Value] = field(default_factory=list)
    head: Head = field(default_factory=Head)

    @property
    def opset(self) -> int:
        """The ai.onnx version."""
        return self.opsets[""]

    @property
    def straight_through(self) -> list[ir.Node]:
        """The quantised nodes whose gradient is a straight-through estimate."""
        return straight_through(self.image, self.logits, self.nodes)

    @property
    def image_shape(self) -> Shape:
        """The image's shape; its first size is "N", or a number for a model of fixed batch."""
        return self.info[self.image.name or ""].shape

    @property
    def logits_shape(self) -> Shape:
        """The logits' shape."""
        return self.info[self.logits.name or ""].shape
