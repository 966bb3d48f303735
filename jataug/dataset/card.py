"""README.md of a data set: what it is, how it was made, how to read it, and the command that makes
it again.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ..config import AttackConfig
from ..preprocessing import Preprocessing
from ..units import typed_radius
from .formats import format_of
from .verification.budget_checks import level_note

__all__ = ["CARD", "CLASSES", "PICTURE", "card", "export_command", "generate_command"]

CARD, PICTURE, CLASSES = "README.md", "preview.png", "classes.json"
"""Where the card, its picture and the names of the classes are, in a data set."""

Index = Mapping[str, Any]

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_OBJECTIVES = {
    "truth": "away from the label",
    "target": "towards a drawn other class",
    "margin": "from the label towards a drawn other class",
}
_PARTS = {"flow": "flow", "pixel": "perturbation"}
_COMPOSITIONS = {
    "spatial-pixel": "the image is warped first, then the perturbation is added",
    "pixel-spatial": "the perturbation is added first, then the sum is warped",
}
_GENERATE = {
    "format": "folder",
    "seed": 0,
    "epoch": 0,
    "batch_size": 64,
    "shard_size": 1024,
    "labels": "source",
    "resize": None,
    "crop": None,
    "threads": None,
    "backend": "onnxruntime",
}
"""What is left out of a command where it is the default."""


def card(index: Index, *, picture: bool, class_folders: bool) -> str:
    """Return the data card of an index: Markdown, the head as Hugging Face reads it.

    Args:
        index: the content of index.json, but for the card itself.
        picture: whether there is one.
        class_folders: whether the folder of an image is its class (format "folder").
    """
    parts = [_head(index, class_folders), _title(index)]
    if picture:
        parts.append(f"![clean, adversarial, perturbation and flow of some images]({PICTURE})")
    parts += [_attack(index["plan"]["attack"]), _labels(index), _layout(index)]
    parts += [_again(index), _licence(index)]
    return "\n\n".join(parts) + "\n"


def export_command(
    attack: Mapping[str, Any], preprocessing: Mapping[str, Any] | None = None
) -> str:
    """Return the command that exports this attack from a model, with what the model wants done to
    images, where that is known.
    """
    flow, pixel = attack["flow"], attack["pixel"]
    options = {
        "flow": repr(flow["radius"]),
        "flow-norm": flow["norm"],
        "pixel": typed_radius(pixel["radius"]),
        "pixel-norm": pixel["norm"],
        **{k.replace("_", "-"): attack[k] for k in attack if k not in ("flow", "pixel")},
    }
    if preprocessing is not None:
        options |= Preprocessing.from_dict(preprocessing).to_options()
    return f"jataug export MODEL -o attack.onnx{_options(options)}"


def generate_command(index: Index) -> str:
    """Return the command that makes the data set, from an artifact and the source."""
    plan = index["plan"]
    told = {name: plan.get(name, default) for name, default in _GENERATE.items()}
    options = {k.replace("_", "-"): v for k, v in told.items() if v != _GENERATE[k]}
    if isinstance(crop := plan["crop"], list):
        options["crop"] = f"{crop[0]},{crop[1]}"
    if plan["class_labels"]:
        options["classes"] = "class_labels.json"
    elif _orders_differ(index):
        options["class-order"] = "natural"
    if plan["count"] != plan["source"]["count"]:
        options["limit"] = plan["count"]
    if index["counts"]["skipped"]:
        options["on-error"] = "skip"
    flags = {"save-flow": plan["save_flow"], "save-float": plan["save_float"]}
    flags["tf32"] = plan.get("tf32", False)
    source = shlex.quote(_source_name(index) or "SOURCE")
    return f"jataug generate attack.onnx {source} out{_options({**options, **flags})}"


def _orders_differ(index: Index) -> bool:
    """Whether class folders would have other numbers in sorted order."""
    names = index["class_names"] or {}
    listed = [names[number] for number in sorted(names, key=int)]
    return index["plan"]["source"]["kind"] == "folder" and listed != sorted(listed)


def _options(options: Mapping[str, Any]) -> str:
    given = {name: value for name, value in options.items() if value not in (None, False)}
    words = (f"--{k}" if v is True else f"--{k} {shlex.quote(str(v))}" for k, v in given.items())
    lines = "".join(f" \\\n    {word}" for word in words)
    return lines


def _source_name(index: Index) -> str | None:
    path = index["source_path"]
    if not path:
        return None
    kind = PureWindowsPath if "\\" in path else PurePosixPath
    return kind(path).name


def _head(index: Index, class_folders: bool) -> str:
    files = format_of(index["format"])
    images = index["counts"]["images"]
    size = next((name for limit, name in _SIZES if images < limit), "n>1M")
    lines = [
        f"pretty_name: {json.dumps(_name(index))}",
        "license: other",
        "license_name: that-of-the-source",
        "task_categories:\n- image-classification",
        "tags:\n- adversarial\n- jataug",
        f"size_categories:\n- {size}",
        "configs:\n- config_name: default\n  data_files:\n  - split: train",
        f"    path: {files.LOADED}",
    ]
    if index["format"] == "folder":
        lines.append(f"  drop_labels: {'false' if class_folders else 'true'}")
    return "\n".join(["---", *lines, "---"])


def _name(index: Index) -> str:
    return f"Adversarial images of {_source_name(index) or 'a source without a name'}"


def _title(index: Index) -> str:
    counts, attack = index["counts"], index["plan"]["attack"]
    rows = [
        ("images", f"{counts['images']:,}"),
        ("accuracy before", _percent(index["clean_accuracy"])),
        ("accuracy after", _percent(index["adversarial_accuracy"])),
        ("flow budget", _flow_budget(attack["flow"])),
        ("pixel budget", _pixel_budget(attack["pixel"])),
        ("left out, could not be used", f"{counts['skipped']:,}"),
        ("kept clean, logits not finite", f"{counts['failed']:,}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    config = AttackConfig.from_dict(attack)
    if note := level_note(config, float_saved=index["plan"]["save_float"]):
        table += f"\n\n{note[0].upper()}{note[1:]}."
    return (
        f"# {_name(index)}\n\n{_summary(attack)} The accuracies are that classifier's, measured on "
        f"exactly the images that are stored here.\n\n| | |\n|---|---|\n{table}"
    )


def _summary(attack: Mapping[str, Any]) -> str:
    moved = "distorted by a small flow field" if attack["flow"]["radius"] else ""
    changed = "changed by a small perturbation" if attack["pixel"]["radius"] else ""
    done = " and ".join(filter(None, (moved, changed))) or "left as it is"
    return (
        f"Every image of the source, {done}, inside the budgets below, so that a classifier takes "
        "it for something else."
    )


def _percent(accuracy: float | None) -> str:
    return "-" if accuracy is None else f"{100 * accuracy:.2f}%"


def _flow_budget(flow: Mapping[str, Any]) -> str:
    if not flow["radius"]:
        return "none"
    what = "the length" if flow["norm"] == "l2" else "each component"
    return f"{flow['radius']:g} pixels, {what} of every vector"


def _pixel_budget(pixel: Mapping[str, Any]) -> str:
    radius = pixel["radius"]
    if not radius:
        return "none"
    if pixel["norm"] == "l2":
        return f"{radius:g} in the l2 norm, images in [0, 1]"
    return f"{255 * radius:g}/255 = {radius:.6g} for every channel of every pixel, images in [0, 1]"


def _attack(attack: Mapping[str, Any]) -> str:
    return (
        "## The attack\n\n"
        + "\n".join(_words(attack))
        + ("\n\n```json\n" + json.dumps(attack, indent=2, sort_keys=True) + "\n```")
    )


def _words(attack: Mapping[str, Any]) -> Iterator[str]:
    moved, changed = attack["flow"]["radius"] > 0, attack["pixel"]["radius"] > 0
    start = "at random points inside the budgets" if attack["start"] == "random" else "at zero"
    count = attack["steps"]
    yield f"- {count} iteration{'s' * (count != 1)} of gradient ascent, begun {start};"
    if moved:
        yield f"- the flow moves the image {_OBJECTIVES[attack['flow_objective']]};"
    if changed:
        yield f"- the perturbation changes it {_OBJECTIVES[attack['pixel_objective']]};"
    if moved and changed:
        first, second = (_PARTS[part] for part in attack["order"].split("-"))
        how = f"the {first} before the {second}"
        if attack["simultaneous"]:
            how = "both from one gradient"
        yield f"- in every iteration {how}; {_COMPOSITIONS[attack['composition']]};"
    if attack["redraw_targets"]:
        yield "- the other class is drawn anew in every iteration;"
    kept = "the last iterate" if attack["keep"] == "last" else "the best iterate of each image"
    yield f"- kept is {kept}."


def _labels(index: Index) -> str:
    text = "`label` is the source's, in the classifier's numbering."
    if index["plan"]["labels"] == "predicted":
        text = "`label` is what the classifier says about the clean image."
    text += (
        " `target` is another class, drawn for the attack; `clean_prediction` and "
        "`adversarial_prediction` are the classifier's; `success` is whether the latter differs "
        "from `label`."
    )
    if names := index["class_names"]:
        listed = (f"{k} {name}" for k, name in sorted(names.items(), key=lambda p: int(p[0])))
        shown = [json.dumps(name, ensure_ascii=False)[1:-1] for name in listed]
        more = f", and {len(shown) - 20} more in `classes.json`" if len(shown) > 20 else ""
        text += f"\n\nClasses: {', '.join(shown[:20])}{more}."
    return f"## Labels\n\n{text}"


def _layout(index: Index) -> str:
    plan = index["plan"]
    lines = [
        f"- {format_of(index['format']).CARD}",
        "- `records/*.jsonl`: a line of JSON an image, in the order of the source;",
        "- `index.json`: the plan, the counts, the sha256 of every file; `plan.json`: the plan.",
    ]
    if index["class_names"]:
        lines.append("- `classes.json`: the name of each class, by its number.")
    if plan["save_flow"]:
        lines.insert(1, "- flows: (2, height, width), float16, (dx, dy) in pixels;")
    if plan["save_float"]:
        lines.insert(1, "- float images: (channel, height, width), float32, before quantisation;")
    return (
        "## What is here\n\n" + "\n".join(lines) + "\n\n`jataug verify` checks all of it: hashes, "
        "counts, budgets, and with `--model` the accuracy."
    )


def _again(index: Index) -> str:
    plan, model = index["plan"], index.get("model")
    unknown = "" if model else " (model options, such as `--mean`, are not known here)"
    export = export_command(plan["attack"], model["preprocessing"] if model else None)
    text = (
        f"## Make it again\n\nThe attack artifact has the sha256 `{plan['artifact']}`. It is what "
        f"this makes of the classifier{unknown}:\n\n"
        f"```sh\n{export}\n{generate_command(index)}\n```"
    )
    if plan["class_labels"]:
        names = json.dumps(plan["class_labels"], ensure_ascii=False)
        text += f"\n\nclass_labels.json is\n\n```json\n{names}\n```"
    made = "; ".join(_build(environment) for environment in index["environments"])
    return (
        f"{text}\n\nThe same plan ({plan['source']['count']:,} samples in the source, seed "
        f"{plan['seed']}) gives the same bytes on the same build: {made}."
    )


def _build(environment: Mapping[str, Any]) -> str:
    names = ("jataug", "onnxruntime", "openvino", "pillow", "numpy", "pyarrow", "platform")
    return ", ".join(f"{name} {environment[name]}" for name in names if environment.get(name))


def _licence(index: Index) -> str:
    what = f"`{_source_name(index)}`" if _source_name(index) else "the source"
    return (
        f"## Licence\n\nThe images are changed versions of those in {what}. Its licence applies to "
        "them; jataug adds no terms. Say that they were changed where that licence asks for it."
    )
