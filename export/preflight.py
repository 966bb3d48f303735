"""Surveys a model file before export: what it is, and whether it can be attacked."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx

from jataug.config import AttackConfig
from jataug.errors import JataugError, ModelError, UnsupportedOperator
from jataug.preprocessing import Preprocessing

from .build import checked_attack
from .graph.builder import Shape
from .graph.quantised_values import STRAIGHT
from .model.classifier import Classifier
from .model.load import image_shape, load_model, prepare
from .model.reach import reached_from
from .rules import find_rule

__all__ = ["Survey", "survey"]


@dataclass(frozen=True)
class Survey:
    """The result of surveying a model.

    Attributes:
        opset: the ai.onnx version of the file.
        ops: how often each op occurs in the file, the most frequent first.
        image_shape: the shape of the network's input; None where `problems` says why.
        classes: number of logits; None where `problems` says why.
        problems: one line for each; empty where the model can be attacked.
        notes: one line for each remark that does not prevent an attack.
    """

    opset: int | None
    ops: dict[str, int]
    image_shape: Shape | None
    classes: int | None
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def survey(
    model: str | Path | onnx.ModelProto,
    preprocessing: Preprocessing | None = None,
    size: tuple[int, int] | None = None,
) -> Survey:
    """Return what a model is and what stands in the way of attacking it.

    Raises:
        ModelError: the file is missing or is not an ONNX file.
    """
    preprocessing = preprocessing or Preprocessing()
    proto = load_model(model)
    opset = next((o.version for o in proto.opset_import if not o.domain), None)
    ops = dict(Counter(node.op_type for node in proto.graph.node).most_common())
    try:
        network = prepare(proto, of=preprocessing.logits, preprocessing=preprocessing, size=size)
    except (ModelError, UnsupportedOperator) as error:
        whole = any((n.domain, n.op_type) in STRAIGHT for n in proto.graph.node)
        notes = ("quantised: its gradient would be a straight-through estimate",) if whole else ()
        return Survey(opset, ops, None, None, (str(error),), notes)
    problems = _missing(network, proto)
    try:
        preprocessing.check_channels(image_shape(network, preprocessing)[0])
        if not problems:
            checked_attack(proto, AttackConfig.preset("claim-1"), preprocessing, size=size)
    except JataugError as error:
        problems.append(str(error))
    return Survey(
        opset,
        ops,
        network.image_shape,
        int(network.logits_shape[1]),
        tuple(problems),
        _notes(network, preprocessing),
    )


def _missing(network: Classifier, proto: onnx.ModelProto) -> list[str]:
    """Return a line for each op without a rule: how often it occurs, and the first node."""
    active = reached_from(network.image, network.nodes)
    found: dict[str, list[str]] = {}
    for node in network.nodes:
        if not any(value in active for value in node.outputs):
            continue
        for i in (i for i, value in enumerate(node.inputs) if value in active):
            try:
                find_rule(node, i, network.opset)
            except UnsupportedOperator:
                domain = node.domain or "ai.onnx"
                op = f"{node.op_type} (domain {domain}, opset {network.opset}, input {i})"
                found.setdefault(op, []).append(node.name or "")
    return [
        f"no derivative rule for {op}: {len(names)} times, first in node {names[0]!r}"
        for op, names in found.items()
    ]


def _notes(network: Classifier, preprocessing: Preprocessing) -> tuple[str, ...]:
    notes = []
    if estimates := Counter(node.op_type for node in network.straight_through):
        counts = ", ".join(f"{op} {count}" for op, count in estimates.most_common())
        notes.append(f"quantised: its gradient is a straight-through estimate in {counts}")
    if "DynamicQuantizeLinear" in estimates:
        notes.append(
            "its quantisation scales are computed over the whole batch, so an image's logits "
            "depend on the other images; a batch of 1 avoids that"
        )
    if taken := network.head.taken_off:
        notes.append(f"the attack uses the values before {', '.join(taken)}")
        if taken[0].startswith("Sigmoid") or taken[-1].startswith("Sigmoid"):
            notes.append(_SEVERAL)
    if hides := network.head.hides:
        notes.append(
            f"{hides} hides the gradient of the attacked output, so measured accuracies may be too "
            "high"
        )
    if isinstance(batch := network.image_shape[0], int):
        notes.append(f"the graph has a fixed batch size of {batch}")
    return tuple(notes)


_SEVERAL = (
    "a Sigmoid over classes is usual for models with several labels per image; here only the "
    "largest class counts as the prediction"
)
