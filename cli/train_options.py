"""The options of jataug train. Each is a field of TrainConfig."""

import json
from typing import Any

import click

from .options import PATH, class_order_option, options, read_numbers, read_side, read_size

__all__ = ["train_options"]


def _named(_: click.Context, __: click.Parameter, given: Any) -> dict[str, Any]:
    """Read NAME=VALUE options; a value that is valid JSON is read as JSON."""
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
            help="Folder of the run: new, empty, or one to resume.",
        ),
        click.option(
            "--model", metavar="NAME",
            help="Network: wrn-DEPTH-WIDTH, small-cnn, resnet-18 (for small images), "
            "resnet-18-imagenet (for 224 pixels), timm:NAME, or package.module:factory. "
            "[default: fits the source]",
        ),
        click.option(
            "--model-option", "model_options", multiple=True, callback=_named,
            metavar="NAME=VALUE",
            help="Keyword argument of the factory. Repeatable.",
        ),
        click.option(
            "--mean", type=read_numbers, default="0", metavar="NUMBERS",
            help="Per-channel mean, for images in [0, 1]: one number, or one per channel. "
            "[default: 0]",
        ),
        click.option(
            "--std", type=read_numbers, default="1", metavar="NUMBERS",
            help="Per-channel standard deviation, for images in [0, 1]. [default: 1]",
        ),
        click.option(
            "--init", type=PATH,
            help="Initial weights: a training run or a .safetensors file. [default: random]",
        ),
        click.option(
            "--mode", type=click.Choice(["natural", "pixel", "flow", "joint"]), default="joint",
            show_default=True,
            help="Train with both attacks, with one of them (the other radius becomes 0), or "
            "without an attack (natural).",
        ),
        click.option(
            "--mix", "mixture", multiple=True, metavar="KIND[:PATH]=RATIO",
            help="Part of every batch: clean, attack (made by torch during training), runtime "
            "(made by ONNX Runtime during training), artifact:FILE, dataset:FOLDER. Repeatable; "
            "the ratios must add up to 1. [default: attack=1; clean=1 with --mode natural]",
        ),
        click.option(
            "--label-smoothing", type=float,
            help="Label smoothing, from 0 to below 1. [default: 0.5; 0 with --mode natural]",
        ),
        click.option(
            "--convention", "--smoothing", "convention", default="authors", show_default=True,
            type=click.Choice(["authors", "torch"]),
            help="authors: the true class gets 1 - s, the others share s. torch: as "
            "torch.nn.CrossEntropyLoss, which spreads s over all classes. --smoothing is the old "
            "name.",
        ),
        click.option(
            "--epochs", type=int,
            help="Passes over the training images. [default: fits the source]",
        ),
        click.option(
            "--batch-size", type=int,
            help="Images per step, over all processes together. [default: fits the source]",
        ),
        click.option(
            "--lr", type=float, default=0.1, show_default=True, help="Peak learning rate of SGD."
        ),
        click.option(
            "--momentum", type=float, default=0.9, show_default=True, help="Momentum of SGD."
        ),
        click.option("--nesterov", is_flag=True, help="Use Nesterov momentum."),
        click.option(
            "--weight-decay", type=float, default=2e-4, show_default=True,
            help="Weight decay of SGD, on all parameters.",
        ),
        click.option(
            "--schedule", type=click.Choice(["step", "cosine", "constant"]), default="step",
            show_default=True,
            help="Learning rate: multiplied by --gamma at --milestones, cosine to 0, or constant.",
        ),
        click.option(
            "--milestones", type=_milestones, metavar="NUMBERS",
            help="For --schedule step, separated by commas: epochs (60,90), or parts of the run "
            "between 0 and 1. [default: 0.3,0.45]",
        ),
        click.option(
            "--gamma", type=float, default=0.1, show_default=True,
            help="Factor of the learning rate at each milestone.",
        ),
        click.option(
            "--warmup", type=float, default=0.0, show_default=True,
            help="Epochs of linear warm-up of the learning rate from 0.",
        ),
        click.option(
            "--ema", type=float, default=0.0, show_default=True,
            help="Decay of an exponential moving average of the weights, such as 0.999. 0 turns it "
            "off.",
        ),
        click.option(
            "--clip", type=float,
            help="Clip the gradient to this norm. [default: no clipping]",
        ),
        click.option(
            "--pad", type=int, default=4, show_default=True,
            help="Augmentation: pad each side by this many pixels, then crop at random. 0 turns it "
            "off.",
        ),
        click.option(
            "--flip/--no-flip", default=True, show_default=True,
            help="Augmentation: flip images horizontally at random.",
        ),
        click.option(
            "--resize", type=read_side, metavar="SIDE",
            help="Resize the shorter side to SIDE pixels. [default: no resize]",
        ),
        click.option(
            "--crop", type=read_size, metavar="SIZE",
            help="Then crop the centre, SIDE or HEIGHT,WIDTH in pixels. [default: no crop]",
        ),
        class_order_option,
        click.option(
            "--limit", type=int, metavar="N", help="Use the first N images only. [default: all]"
        ),
        click.option(
            "--classes", type=PATH, metavar="FILE",
            help="File that maps class names to the network's classes: one name per line in their "
            "order, or JSON {name: class}. [default: the source's own order]",
        ),
        click.option(
            "--validation", type=int, metavar="N",
            help="Number of images held out of training for validation. "
            "[default: a tenth, at most 1000]",
        ),
        click.option(
            "--evaluation-images", type=int, default=500, show_default=True,
            help="Number of validation images that are attacked after an epoch.",
        ),
        click.option(
            "--evaluation-steps", type=int, default=10, show_default=True,
            help="Iterations of the attack on validation images.",
        ),
        click.option(
            "--evaluate-every", type=int, default=1, show_default=True, metavar="EPOCHS",
            help="Evaluate every so many epochs, and after the last one.",
        ),
        click.option(
            "--seed", type=int, default=0, show_default=True,
            help="Seed of weights, order, augmentation and attacks.",
        ),
        click.option(
            "--device", default="auto", show_default=True,
            help="auto, cpu, cuda or cuda:<i>. auto takes a GPU if torch finds one. cuda is "
            "experimental.",
        ),
        click.option(
            "--precision", type=click.Choice(["float32", "bf16"]), default="float32",
            show_default=True, help="bf16 runs the network under autocast.",
        ),
        click.option(
            "--channels-last", is_flag=True, help="Use the channels-last memory format."
        ),
        click.option("--compile", is_flag=True, help="Compile the network with torch.compile."),
        click.option(
            "--sync-batch-norm", is_flag=True,
            help="Compute batch-norm statistics over all processes. CUDA only.",
        ),
        click.option(
            "--workers", type=int, default=2, show_default=True,
            help="Threads that read images, if these do not fit into memory.",
        ),
        click.option(
            "--checkpoint-steps", type=int, default=0, show_default=True,
            help="Also save a checkpoint every so many steps. 0 saves after each epoch only.",
        ),
        click.option("--tensorboard", is_flag=True, help="Also write TensorBoard event files."),
    ]
)  # fmt: skip
