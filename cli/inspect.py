"""jataug inspect."""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from jataug.artifact import Manifest, hiding_head, is_artifact, load_artifact

from .command import Command
from .options import PATH, model_options, preprocessing

__all__ = ["command"]


@click.command("inspect", cls=Command)
@click.argument("file", type=PATH)
@model_options
def command(file: Path, **given: Any) -> None:
    """Describe FILE: an attack artifact, a model, or the folder of a data set.

    For a model it reports whether jataug can attack it, and if not, why. The model options are
    those of jataug export.

    \b
    jataug inspect model.onnx
    jataug inspect attack.onnx
    jataug inspect adversarial/
    """
    if file.is_dir():
        rows = _of_dataset(file)
    elif is_artifact(file):
        rows = _of_artifact(file)
    else:
        rows = _of_model(file, given)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def _of_artifact(file: Path) -> list[tuple[str, str]]:
    model, manifest = load_artifact(file)
    config = manifest.config
    flow, pixel = config.flow, config.pixel
    channel, height, width = manifest.image_shape
    most = f"at most {manifest.max_flow_radius:g}"
    return [
        ("file", f"{file}: an attack artifact, format_version {manifest.format_version}"),
        ("form", f"{manifest.form}, {manifest.iterations} iterations a call"),
        ("images", f"{channel} x {height} x {width}"),
        ("batch", "any" if manifest.batch == "N" else f"{manifest.batch}, fixed"),
        ("classes", f"{manifest.classes}"),
        ("flow", f"{flow.radius:g} px {flow.norm} ({most}), objective {config.flow_objective}"),
        ("pixel", f"{pixel.radius:.6g} {pixel.norm}, objective {config.pixel_objective}"),
        ("attack", f"{config.steps} steps, {config.order}, {config.composition}"),
        ("iterate", f"{config.start} start, the {config.keep} is kept"),
        ("preprocessing", _said(manifest.preprocessing.to_dict())),
        ("precision", f"network in {manifest.precision or 'a type that the file does not say'}"),
        ("inputs", ", ".join(value.name for value in model.graph.input)),
        ("outputs", ", ".join(value.name for value in model.graph.output)),
        ("nodes", f"{len(model.graph.node)}, opset {model.opset_import[0].version}"),
        ("model", f"sha256 {manifest.model_sha256}"),
        *_of_estimates(manifest),
        *_of_logits(model),
        ("checked", manifest.checked or "no"),
        ("versions", _said(manifest.versions)),
    ]


def _of_estimates(manifest: Manifest) -> list[tuple[str, str]]:
    if not manifest.straight_through:
        return []
    counts = Counter(entry.split()[0] for entry in manifest.straight_through).most_common()
    rows = [("gradient", f"straight-through, in {_said(dict(counts))}")]
    if manifest.logits_difference is not None:
        difference = f"{manifest.logits_difference:.2%} of their span"
        rows.append(("logits", f"beside the gradient they differ from the model's by {difference}"))
    return rows


def _of_logits(model: Any) -> list[tuple[str, str]]:
    """Return how the logits relate to the output of the attacked model, and any warning."""
    said = [value.doc_string for value in model.graph.output if value.name == "logits"]
    rows = [("logits", f"the values {text}") for text in said if text]
    if hides := hiding_head(model):
        rows.append(("warning", hides))
    return rows


def _of_model(file: Path, given: dict[str, Any]) -> list[tuple[str, str]]:
    from jataug.export.model.load import load_model
    from jataug.export.preflight import survey

    proto = load_model(file)
    found = survey(proto, preprocessing(given), given["size"])
    rows = [
        ("file", f"{file}: an ONNX model, opset {found.opset}"),
        ("ops", ", ".join(f"{op} {count}" for op, count in found.ops.items())),
        ("inputs", _values(proto.graph.input, proto)),
        ("outputs", _values(proto.graph.output, proto)),
    ]
    if found.image_shape is not None:
        rows.append(("image", " x ".join(map(str, found.image_shape))))
        rows.append(("batch", _batch(proto, found.image_shape)))
        rows.append(("classes", str(found.classes)))
    rows.append(("can be attacked", "no" if found.problems else "yes"))
    rows += [("because", problem) for problem in found.problems]
    return rows + [("note", note) for note in found.notes]


def _values(values: Any, proto: Any) -> str:
    """Return names and shapes as the file has them; ? marks an open size without a name."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    return ", ".join(
        f"{v.name} [{', '.join(_size(dim) for dim in v.type.tensor_type.shape.dim)}]"
        for v in values
        if v.name not in weights
    )


def _size(dim: Any) -> str:
    return str(dim.dim_value or dim.dim_param or "?")


def _batch(proto: Any, shape: tuple[int | str, ...]) -> str:
    """Return the batch size of the model, and of an attack on it."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    sizes = [v.type.tensor_type.shape.dim for v in proto.graph.input if v.name not in weights]
    held = next((dims[0].dim_value for dims in sizes if len(dims) == len(shape)), 0)
    if not isinstance(shape[0], str):
        return f"{shape[0]}, fixed"
    return f"{held} in the file; an attack on it takes any" if held else "any"


def _of_dataset(folder: Path) -> list[tuple[str, str]]:
    from jataug.dataset import open_dataset

    dataset = open_dataset(folder)
    plan = dataset.index["plan"]
    attack = plan["attack"]
    return [
        ("folder", f"{folder}: a data set, format_version {dataset.index['format_version']}"),
        ("images", f"{len(dataset)}, format {plan['format']}"),
        ("flow", f"{attack['flow']['radius']:g} px {attack['flow']['norm']}"),
        ("pixel", f"{attack['pixel']['radius']:.6g} {attack['pixel']['norm']}"),
        ("attack", f"{attack['steps']} steps, {attack['order']}, {attack['composition']}"),
        ("seed", f"{plan['seed']}, epoch {plan['epoch']}"),
    ]


def _said(data: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in data.items() if value is not None)


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "/".join(f"{number:g}" for number in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
