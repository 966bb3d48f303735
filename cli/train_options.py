"""The options of jataug train, each a field of TrainConfig."""

import json
from typing import Any

import click

from .options import PATH, class_order_option, options, read_numbers, read_side, read_size

__all__ = ["train_options"]


def _named(_: click.Context, __: click.Parameter, given: Any) -> dict[str, Any]:
    """Read NAME=VALUE, the value as JSON where it is some."""
    options = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"expected NAME=VALUE, got {text!r}")
        try:
            options[name] = json.loads(value)
        except (ValueError, RecursionError):
            options[name] = value
    return options


def _milestones(value: Any) -> tuple[float, ...]:
    parts = value if isinstance(value, (list, tuple)) else [p for p in str(value).split(",") if p]
    try:
        return tuple(float(p) if "." in str(p) else int(p) for p in parts)
    except (TypeError, ValueError):
        raise click.BadParameter(
            f"expected epochs, or parts of the run, separated by commas, got {value!r}"
        ) from None


train_options = options(
    [
        click.option(
            "-o", "--output", type=PATH, required=True,
            help="The run: a new folder, or one to resume.",
        ),
        click.option(
            "--model", metavar="NAME",
            help="wrn-DEPTH-WIDTH, small-cnn, resnet-18, resnet-18-imagenet, "
            "timm:NAME, package.module:factory. [default: fits the source]",
        ),
        click.option(
            "--model-option", "model_options", multiple=True, callback=_named,
            metavar="NAME=VALUE",
            help="An argument of the factory; may be repeated.",
        ),
        click.option(
            "--mean", type=read_numbers, default="0", metavar="NUMBERS",
            help="Taken off images in [0, 1].",
        ),
        click.option(
            "--std", type=read_numbers, default="1", metavar="NUMBERS",
            help="What they are divided by.",
        ),
        click.option("--init", type=PATH, help="A run or a .safetensors file to start from."),
        click.option(
            "--mode", type=click.Choice(["natural", "pixel", "flow", "joint"]), default="joint",
            show_default=True,
            help="joint, one of the two alone (the other radius is then 0), or no attack.",
        ),
        click.option(
            "--mix", "mixture", multiple=True, metavar="KIND[:PATH]=RATIO",
            help="A part of every batch: clean, attack (torch, on the fly), runtime (ONNX Runtime, "
            "on the fly), artifact:FILE, dataset:FOLDER. Repeat it; ratios add up to 1.",
        ),
        click.option(
            "--label-smoothing", type=float,
            help="Amount. [default: 0.5; 0 for --mode natural]",
        ),
        click.option(
            "--convention", "--smoothing", "convention", default="authors", show_default=True,
            type=click.Choice(["authors", "torch"]),
            help="Whose convention of label smoothing. --smoothing is the old name.",
        ),
        click.option("--epochs", type=int, help="[default: fits the source]"),
        click.option(
            "--batch-size", type=int,
            help="Over all processes. [default: fits the source]",
        ),
        click.option("--lr", type=float, default=0.1, show_default=True),
        click.option("--momentum", type=float, default=0.9, show_default=True),
        click.option("--nesterov", is_flag=True),
        click.option("--weight-decay", type=float, default=2e-4, show_default=True),
        click.option(
            "--schedule", type=click.Choice(["step", "cosine", "constant"]), default="step",
            show_default=True
        ),
        click.option(
            "--milestones", type=_milestones, metavar="NUMBERS",
            help="Of the schedule step: epochs (60,90), or parts of the run. [default: 0.3,0.45]",
        ),
        click.option(
            "--gamma", type=float, default=0.1, show_default=True,
            help="Of the schedule step.",
        ),
        click.option("--warmup", type=float, default=0.0, show_default=True, help="Epochs."),
        click.option(
            "--ema", type=float, default=0.0, show_default=True,
            help="Decay of the weight average.",
        ),
        click.option("--clip", type=float, help="Largest norm of the gradient."),
        click.option(
            "--pad", type=int, default=4, show_default=True,
            help="Random crop after padding, pixels.",
        ),
        click.option(
            "--flip/--no-flip", default=True, show_default=True,
            help="Random horizontal flip.",
        ),
        click.option(
            "--resize", type=read_side, metavar="SIDE", help="Resize the shorter side, pixels."
        ),
        click.option("--crop", type=read_size, metavar="SIDE", help="Crop the centre, pixels."),
        class_order_option,
        click.option("--limit", type=int, metavar="N", help="Use the first N images."),
        click.option(
            "--classes", type=PATH, metavar="FILE",
            help="The network's class of each class name: a name a line, in the order of the "
            "classes, or JSON {name: class}. [default: the source's own order]"
        ),
        click.option(
            "--validation", type=int, metavar="N",
            help="Images held out. [default: a tenth, at most 1000]",
        ),
        click.option(
            "--evaluation-images", type=int, default=500, show_default=True,
            help="Held-out images to attack.",
        ),
        click.option("--evaluation-steps", type=int, default=10, show_default=True),
        click.option("--evaluate-every", type=int, default=1, show_default=True, metavar="EPOCHS"),
        click.option("--seed", type=int, default=0, show_default=True),
        click.option(
            "--device", default="auto", show_default=True,
            help="auto, cpu, cuda or cuda:<i>.",
        ),
        click.option(
            "--precision", type=click.Choice(["float32", "bf16"]), default="float32",
            show_default=True
        ),
        click.option("--channels-last", is_flag=True),
        click.option("--compile", is_flag=True, help="torch.compile the network."),
        click.option(
            "--sync-batch-norm", is_flag=True,
            help="Statistics over all processes; CUDA only.",
        ),
        click.option(
            "--workers", type=int, default=2, show_default=True,
            help="Threads that read images.",
        ),
        click.option(
            "--checkpoint-steps", type=int, default=0, show_default=True,
            help="Save also within an epoch.",
        ),
        click.option("--tensorboard", is_flag=True, help="Write event files too."),
    ]
)  # fmt: skip
