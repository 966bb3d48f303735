"""Options that several commands share, as decorators, and functions that read their values."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from jataug.budget import FlowBudget, Norm, PixelBudget
from jataug.config import PRESETS, AttackConfig, Composition, Keep, Objective, Order, Start
from jataug.preprocessing import Channels, Layout, Outputs, Preprocessing
from jataug.runtime.backends import BACKENDS

if TYPE_CHECKING:
    from jataug.data import Source

__all__ = [
    "PATH",
    "attack_config",
    "attack_options",
    "backend_option",
    "class_order_option",
    "device_option",
    "model_options",
    "on_error_option",
    "open_images",
    "options",
    "precision_option",
    "preprocessing",
    "read_numbers",
    "read_side",
    "read_size",
    "say_classes",
    "source_options",
    "steps_option",
    "tf32_option",
    "threads_option",
]

Function = TypeVar("Function", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


def read_numbers(value: Any) -> tuple[float, ...]:
    """Read numbers separated by commas; from a TOML file also a number or a list."""
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        raise click.BadParameter(f"expected numbers separated by commas, got {value!r}") from None


def read_size(value: Any) -> tuple[int, int]:
    """Read SIDE or HEIGHT,WIDTH in pixels."""
    parts = value if isinstance(value, (list, tuple)) else str(value).split(",")
    try:
        sides = [int(part) for part in parts]
    except (TypeError, ValueError):
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise click.BadParameter(f"expected SIDE or HEIGHT,WIDTH in pixels, got {value!r}")
    return sides[0], sides[-1]


def read_side(value: Any) -> int:
    """Read the length of a shorter side, in pixels."""
    try:
        return int(value)
    except (TypeError, ValueError):
        crop = f", and --crop {value}" if isinstance(value, str) and "," in value else ""
        raise click.BadParameter(
            f"expected the shorter side in pixels, such as --resize 256{crop}, got {value!r}"
        ) from None


def options(given: Sequence[Callable[[Function], Function]]) -> Callable[[Function], Function]:
    """Return one decorator that adds all these options, in this order."""

    def decorate(function: Function) -> Function:
        for option in reversed(given):
            function = option(function)
        return function

    return decorate


def _choice(words: Any) -> "click.Choice[str]":  # no generic class before click 8.2
    return click.Choice(get_args(words))


attack_options = options(
    [
        click.option(
            "--preset", type=click.Choice(list(PRESETS)), default="claim-1", show_default=True,
            help="Defaults for --order, --composition, the objectives and --keep. claim-1 and "
            "claim-8 are for training; evaluation is for measuring robustness.",
        ),
        click.option(
            "--flow", default="0.3", show_default=True, metavar="R",
            help="Flow radius in pixels: how far the flow may move each pixel. 0 turns the flow "
            "off.",
        ),
        click.option(
            "--flow-norm", type=_choice(Norm), default="l2", show_default=True,
            help="l2 limits the length of each flow vector, linf each of its two components.",
        ),
        click.option(
            "--flow-step", type=float,
            help="Flow step size, pixels per iteration. [default: radius * min(1, 2.5 / steps)]",
        ),
        click.option(
            "--pixel", default="8/255", show_default=True, metavar="R",
            help="Pixel radius, for images in [0, 1]: a fraction or a number, such as 8/255 or "
            "0.03. 0 turns the perturbation off.",
        ),
        click.option(
            "--pixel-norm", type=_choice(Norm), default="linf", show_default=True,
            help="linf limits the change of each value, l2 the norm of the whole perturbation.",
        ),
        click.option(
            "--pixel-step", type=float,
            help="Pixel step size per iteration, for images in [0, 1]. [default: radius * min(1, "
            "2.5 / steps)]",
        ),
        click.option(
            "--order", type=_choice(Order),
            help="Which of the two is updated first in an iteration. [default: the preset's]",
        ),
        click.option(
            "--composition", type=_choice(Composition),
            help="spatial-pixel warps the image, then adds the perturbation; pixel-spatial adds "
            "first, then warps the sum. [default: the preset's]",
        ),
        click.option(
            "--flow-objective", type=_choice(Objective),
            help="Where the flow moves the prediction: away from the true class (truth), towards a "
            "random other class (target), or both (margin). [default: the preset's]",
        ),
        click.option(
            "--pixel-objective", type=_choice(Objective),
            help="Where the perturbation moves it, as for --flow-objective. [default: the "
            "preset's]",
        ),
        click.option(
            "--start", type=_choice(Start), default="random", show_default=True,
            help="Start at a random point inside the budgets, or at zero.",
        ),
        click.option(
            "--keep", type=_choice(Keep),
            help="Return the last iterate, or the best one of each image. [default: the preset's]",
        ),
        click.option(
            "--simultaneous", is_flag=True,
            help="Update flow and pixels from one gradient per iteration, not from two.",
        ),
        click.option(
            "--redraw-targets", is_flag=True,
            help="Draw new target classes in every iteration, not once per call.",
        ),
    ]
)  # fmt: skip


def steps_option(default: int) -> Callable[[Function], Function]:
    """Return the option --steps, which `attack_config` reads, with this default."""
    return click.option(
        "--steps", type=int, default=default, show_default=True,
        help="Iterations of the attack. 0 gives random augmentation without a gradient.",
    )  # fmt: skip


def attack_config(given: dict[str, Any]) -> AttackConfig:
    """Return the configuration of the attack and remove its options from `given`."""
    flow = FlowBudget(given.pop("flow"), given.pop("flow_norm"))
    pixel = PixelBudget(given.pop("pixel"), given.pop("pixel_norm"))
    names = [
        "steps", "flow_step", "pixel_step", "order", "composition", "flow_objective",
        "pixel_objective", "start", "keep", "simultaneous", "redraw_targets",
    ]  # fmt: skip
    options = {name: value for name in names if (value := given.pop(name)) is not None}
    return AttackConfig.preset(given.pop("preset"), flow=flow, pixel=pixel, **options)


model_options = options(
    [
        click.option(
            "--mean", type=read_numbers, default="0", metavar="NUMBERS",
            help="Subtracted after --scale: one number, or one per channel in RGB order. "
            "[default: 0]"
        ),
        click.option("--std", type=read_numbers, default="1", metavar="NUMBERS",
            help="Divisor after --mean: one number, or one per channel. [default: 1]"),
        click.option(
            "--scale", type=float, default=1.0,
            help="The model sees (image * scale - mean) / std, for an image in [0, 1]. Use 255 "
            "for a model that takes values from 0 to 255. [default: 1]"
        ),
        click.option(
            "--layout", type=_choice(Layout), default="nchw", show_default=True,
            help="Axis order of the model's image input; TensorFlow and Keras use nhwc."
        ),
        click.option(
            "--channels", type=_choice(Channels), default="rgb", show_default=True,
            help="Channel order of the model; Caffe and OpenCV use bgr."
        ),
        click.option(
            "--logits", metavar="NAME",
            help="The output that holds the logits. [default: the only output]"
        ),
        click.option(
            "--outputs", type=_choice(Outputs),
            help="What that output holds. For probabilities, the attack uses the values before "
            "the softmax. [default: logits; required if the output is a softmax or the like]"
        ),
        click.option(
            "--size", type=read_size, metavar="SIZE",
            help="Image size in pixels, SIDE or HEIGHT,WIDTH, if the model leaves it open."
        ),
    ]
)  # fmt: skip


def preprocessing(given: dict[str, Any]) -> Preprocessing:
    """Return the preprocessing and remove its options from `given`; --size stays."""
    names = ("mean", "std", "scale", "layout", "channels", "logits", "outputs")
    return Preprocessing(**{name: given.pop(name) for name in names})


precision_option = click.option(
    "--precision", type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Element type of the network and its gradient. [default: the model's own]"
)  # fmt: skip


on_error_option = click.option(
    "--on-error", type=click.Choice(["stop", "skip"]), default="stop", show_default=True,
    help="At an unusable image: stop, or skip it and report it."
)  # fmt: skip


class_order_option = click.option(
    "--class-order", type=click.Choice(["natural", "sorted"]),
    help="How class folders are numbered: natural (1, 2, 10), or sorted (1, 10, 2) as torchvision, "
    "Keras and Hugging Face do. Required if the two differ."
)  # fmt: skip


source_options = options(
    [
        click.option(
            "--resize", type=read_side, metavar="SIDE",
            help="Resize the shorter side to SIDE pixels. [default: no resize]"
        ),
        click.option(
            "--crop", type=read_size, metavar="SIZE",
            help="Then crop the centre, SIDE or HEIGHT,WIDTH in pixels. [default: no crop]"
        ),
        click.option(
            "--labels", type=click.Choice(["source", "predicted"]), default="source",
            show_default=True,
            help="Take labels from the source, or use the model's own predictions."
        ),
        click.option(
            "--classes", type=PATH,
            help="File that maps class folders to the model's classes: one name per line in the "
            "model's order, or JSON {name: class}. [default: see --class-order]"
        ),
        class_order_option,
        click.option(
            "--seed", type=int, default=0, show_default=True,
            help="Seed of the random starts and targets."
        ),
        click.option(
            "--epoch", type=int, default=0, show_default=True,
            help="Number of the pass; each epoch draws other starts and targets."
        ),
    ]
)  # fmt: skip


def open_images(source: Path, say: Callable[[str], object] | None = None) -> "Source":
    """Return the images of SOURCE, and report in one line the files there that are not read.

    Args:
        source: as for jataug.data.open_source.
        say: called with the line; by default the line is printed to stderr as a warning.
    """
    from jataug.data import open_source

    held = open_source(source)
    if held.left_out is not None and held.left_out.count:
        line = f"{source}: {held.left_out}"
        click.echo(f"Warning: {line}", err=True) if say is None else say(line)
    return held


def say_classes(
    source: "Source", given: Mapping[str, Any], say: Callable[[str], object] | None = None
) -> None:
    """Report in one line how the first classes are numbered, if they have names.

    Args:
        source: the source of the images.
        given: the values of `source_options`.
        say: called with the line; by default the line is printed to stderr.
    """
    from jataug.data import class_map, first_classes

    if given["labels"] != "source":
        return
    meaning = class_map(source, None, given["classes"], given["class_order"])
    if line := first_classes(meaning.names):
        click.echo(line, err=True) if say is None else say(line)


device_option = click.option(
    "--device", default="auto", show_default=True,
    help="auto, cpu, cuda or cuda:<i>. auto takes a GPU if the runtime has one. cuda is "
    "experimental."
)  # fmt: skip


threads_option = click.option(
    "--threads", type=int, metavar="N",
    help="Threads of the runtime. [default: the runtime's own choice]"
)  # fmt: skip


tf32_option = click.option(
    "--tf32", is_flag=True,
    help="Allow TF32 on CUDA: faster, about three fewer significant digits. Changes the output.",
)  # fmt: skip


backend_option = click.option(
    "--backend", type=click.Choice(BACKENDS), default="onnxruntime", show_default=True,
    help="The runtime that runs the attack. Changes the output."
)  # fmt: skip
