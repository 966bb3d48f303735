"""What a model file is, and whether it can be attacked: asked before anything is exported."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

from jataug.errors import ModelError, UnsupportedOperator
from jataug.preprocessing import Preprocessing

from .differentiate import reached_from
from .graph import Shape
from .model import load_model, prepare
from .rules import find_rule

__all__ = ["Survey", "survey"]


@dataclass(frozen=True)
class Survey:
    """What is known of a model.

    Attributes:
        opset: the ai.onnx version of the file.
        ops: how often each op occurs in the file, the most frequent first.
        image_shape: as the network takes it; None where `problems` says why.
        classes: number of logits; likewise.
        problems: one line each; none means that the model can be attacked.
    """

    opset: int | None
    ops: dict[str, int]
    image_shape: Shape | None
    classes: int | None
    problems: tuple[str, ...]


def survey(
    model: str | Path | onnx.ModelProto,
    preprocessing: Preprocessing | None = None,
    size: tuple[int, int] | None = None,
) -> Survey:
    """Return what a model is and what stands in the way of attacking it.

    Raises:
        ModelError: the file is missing or no ONNX file.
    """
    preprocessing = preprocessing or Preprocessing()
    proto = load_model(model)
    opset = next((o.version for o in proto.opset_import if not o.domain), None)
    ops = dict(Counter(node.op_type for node in proto.graph.node).most_common())
    try:
        network = prepare(proto, of=preprocessing.logits, preprocessing=preprocessing, size=size)
    except (ModelError, UnsupportedOperator) as error:
        return Survey(opset, ops, None, None, (str(error),))
    active = reached_from(network.image, network.nodes)
    problems: dict[str, None] = {}
    for node in network.nodes:
        if not any(value in active for value in node.outputs):
            continue
        for i, value in enumerate(node.inputs):
            if value in active:
                try:
                    find_rule(node, i, network.opset)
                except UnsupportedOperator as error:
                    problems[str(error)] = None
    return Survey(opset, ops, network.image_shape, int(network.logits_shape[1]), tuple(problems))
