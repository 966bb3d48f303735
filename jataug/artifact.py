"""The attack artifact: an ONNX file with a manifest in its metadata that describes the attack."""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from .checks import digest, known_fields
from .config import AttackConfig
from .errors import ArtifactError, BudgetError, ModelError
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    import onnx

__all__ = [
    "FORMAT_VERSION",
    "KEY",
    "Form",
    "Manifest",
    "graph_digest",
    "hiding_head",
    "is_artifact",
    "load_artifact",
    "needed_nodes",
    "prune",
    "reads",
    "sign",
]

FORMAT_VERSION = 1
KEY = "jataug"
"""The manifest's key in the file's metadata_props."""

Form = Literal["step", "loop", "unrolled"]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The manifest of an artifact.

    Attributes:
        form: "step" makes one iteration per call; "loop" and "unrolled" make the whole attack.
        iterations: number of iterations per call.
        config: the attack. Its radii and steps are the defaults of a session.
        max_flow_radius: largest flow radius, in pixels, that the graph supports.
        reach: R, the reach of the warp's stencil in pixels.
        batch: "N", or the batch size of a model whose batch is fixed.
        image_shape: (channel, height, width).
        classes: number of logits.
        preprocessing: preprocessing between an image in [0, 1] and the network.
        model_sha256: sha256 of the model file.
        versions: versions of the packages that made the file.
        checked: the runtime on which the gradient was checked, or None.
        weights: names of the inputs that are weights; empty if the weights are in the file.
        straight_through: names of the model's quantised nodes with a straight-through gradient;
            empty if the gradient is exact.
        logits_difference: for a quantised model, the largest difference between the logits of the
            artifact and those of the model, relative to the span of the latter; None if it was
            not measured.
        precision: element type of the network and its gradient; None in old files that lack it.
        format_version: version of the manifest's format.
    """

    form: Form
    iterations: int
    config: AttackConfig
    max_flow_radius: float
    reach: int
    batch: int | str
    image_shape: tuple[int, int, int]
    classes: int
    preprocessing: Preprocessing
    model_sha256: str
    versions: dict[str, str]
    checked: str | None = None
    weights: tuple[str, ...] = ()
    straight_through: tuple[str, ...] = ()
    logits_difference: float | None = None
    precision: str | None = None
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the manifest that `to_dict` wrote. Unknown keys, of a newer version, are ignored.

        Raises:
            ArtifactError: the format is newer than this version knows, a key is missing or
                wrong, or the attack or the preprocessing has an unknown option.
        """
        version = data.get("format_version")
        if not isinstance(version, int):
            raise ArtifactError(f"manifest: expected a format_version, got {version!r}")
        if version > FORMAT_VERSION:
            raise ArtifactError(
                f"manifest: format_version {version!r} is newer than {FORMAT_VERSION}, the newest "
                "that this version reads; update jataug"
            )
        try:
            parsed = {
                "config": AttackConfig.from_dict(data["config"]),
                "preprocessing": Preprocessing.from_dict(data["preprocessing"]),
                "image_shape": tuple(data["image_shape"]),
                "weights": tuple(data.get("weights", ())),
                "straight_through": tuple(data.get("straight_through", ())),
            }
            found = cls(**{**known_fields(cls, data), **parsed})
        except (KeyError, TypeError, BudgetError, ModelError) as error:
            raise ArtifactError(f"manifest: cannot be read: {error}") from None
        found._check()
        return found

    def _check(self) -> None:
        def whole(value: Any, least: int) -> bool:
            return type(value) is int and value >= least

        for name, right in {
            "form": self.form in get_args(Form),
            "iterations": whole(self.iterations, 0),
            "max_flow_radius": type(self.max_flow_radius) in (int, float)
            and 0 <= self.max_flow_radius < math.inf,
            "reach": whole(self.reach, 0),
            "batch": self.batch == "N" or whole(self.batch, 1),
            "image_shape": len(self.image_shape) == 3
            and all(whole(s, 1) for s in self.image_shape),
            "classes": whole(self.classes, 2),
            "model_sha256": isinstance(self.model_sha256, str),
            "versions": isinstance(self.versions, dict),
            "checked": isinstance(self.checked, str | None),
            "weights": all(isinstance(name, str) for name in self.weights),
            "straight_through": all(isinstance(name, str) for name in self.straight_through),
            "logits_difference": isinstance(self.logits_difference, int | float | None),
            "precision": isinstance(self.precision, str | None),
        }.items():
            if not right:
                raise ArtifactError(f"manifest: {name} cannot be {getattr(self, name)!r}")

    @property
    def inputs(self) -> list[str]:
        """The names of the graph's inputs, in order."""
        names = ["image", "label", "target"]
        branches = [b for b in ("flow", "pixel") if b in self.config.branches]
        names += [{"flow": "flow", "pixel": "delta"}[b] for b in branches]
        names += [f"{b}_radius" for b in branches]
        return [*names, *(f"{b}_step" for b in branches), *self.weights]


def sign(model: "onnx.ModelProto", manifest: Manifest) -> None:
    """Write the manifest into the model's metadata, with the digests of manifest and graph."""
    data = {**manifest.to_dict(), "graph_sha256": graph_digest(model)}
    data["manifest_sha256"] = digest(data, finite=False)
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(data, sort_keys=True)


def load_artifact(path: str | Path) -> tuple["onnx.ModelProto", Manifest]:
    """Return an artifact's model and its manifest.

    Raises:
        ArtifactError: the file is missing, truncated, edited, no artifact, or of a newer format.
    """
    import onnx
    from google.protobuf.message import DecodeError

    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"{path}: expected an attack artifact, found no file")
    try:
        model = onnx.load(path)
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path}: not a readable ONNX file (truncated?): {reason}") from None
    for tensor in model.graph.initializer:
        # Loading sets it for weights from an external file, which would change the digest.
        tensor.ClearField("data_location")
    text = {entry.key: entry.value for entry in model.metadata_props}.get(KEY)
    if text is None:
        raise ArtifactError(
            f"{path}: expected an attack artifact, found an ONNX file without a manifest; make "
            "one with jataug export"
        )
    try:
        return model, _check(model, json.loads(text))
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path}: the manifest is not valid JSON: {error}") from None
    except RecursionError:
        raise ArtifactError(
            f"{path}: the manifest is damaged (nested too deeply); export the attack again"
        ) from None
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None


def is_artifact(path: str | Path) -> bool:
    """Return whether a file is an ONNX model with a jataug manifest, without checking it."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError):
        return False
    return any(entry.key == KEY for entry in model.metadata_props)


def _check(model: "onnx.ModelProto", data: Any) -> Manifest:
    if not isinstance(data, dict):
        raise ArtifactError("manifest: expected a JSON object")
    graph, own = data.pop("graph_sha256", None), data.pop("manifest_sha256", None)
    manifest = Manifest.from_dict(data)
    if own != digest({**data, "graph_sha256": graph}, finite=False):
        raise ArtifactError("the manifest was edited after the export; export the attack again")
    names = [value.name for value in model.graph.input]
    sizes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    alike = (
        names == manifest.inputs
        and sizes["image"] == [manifest.batch, *manifest.image_shape]
        and sizes.get("logits", [])[1:] == [manifest.classes]
    )
    if graph != graph_digest(model) or not alike:
        raise ArtifactError("manifest and graph disagree; export the attack again")
    return manifest


def graph_digest(model: "onnx.ModelProto") -> str:
    """Return the sha256 of the model's graph."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


_HIDING = {"HardSigmoid", "Sigmoid", "Softmax", "Softsign", "Tanh"}


def hiding_head(model: "onnx.ModelProto") -> str | None:
    """Return a warning if the logits of an artifact come from an operator such as Softmax.

    Such an operator hides the gradient. Version 0.1 exported such models without an error, and
    later versions do with --outputs logits.
    """
    name = "logits"
    while True:
        node = next((n for n in model.graph.node if name in n.output), None)
        if node is None or not node.input:
            return None
        if node.op_type in ("Cast", "Identity", "Flatten", "Reshape", "Squeeze"):
            name = node.input[0]
        elif node.op_type in _HIDING and not node.domain:
            return (
                f"the attacked logits are made by {node.op_type} (node {node.name!r}), which hides "
                "their gradient, so the model may seem more robust than it is; export it with "
                "--outputs probabilities"
            )
        else:
            return None


def prune(model: "onnx.ModelProto", outputs: Iterable[str]) -> "onnx.ModelProto":
    """Return a copy that computes only `outputs`, with the nodes, inputs and weights they need."""
    import onnx

    wanted = list(outputs)
    nodes = needed_nodes(model.graph, wanted)
    needed = set(wanted).union(*map(reads, nodes))
    graph = onnx.helper.make_graph(
        nodes,
        model.graph.name,
        [value for value in model.graph.input if value.name in needed],
        [value for value in model.graph.output if value.name in wanted],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    return onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )


def needed_nodes(graph: "onnx.GraphProto", names: Iterable[str]) -> "list[onnx.NodeProto]":
    """Return the nodes that make some values, in order."""
    needed, found = set(names), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed |= reads(node)
            found.append(node)
    return found[::-1]


def reads(node: "onnx.NodeProto") -> set[str]:
    """Return the names that a node reads, also those that its nested graphs read from outside."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            own = {t.name for t in graph.initializer} | {v.name for v in graph.input}
            own.update(name for inner in graph.node for name in inner.output)
            inside = set[str]().union(*map(reads, graph.node), (v.name for v in graph.output))
            names |= inside - own
    return names - {""}
