"""Options that several commands share, each a decorator; what they collect becomes one object."""

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
            "--preset", type=click.Choice(list(PRESETS)), default="claim-1", show_default=True
        ),
        click.option(
            "--flow", default="0.3", show_default=True, metavar="R", help="Flow radius, pixels."
        ),
        click.option("--flow-norm", type=_choice(Norm), default="l2", show_default=True),
        click.option("--flow-step", type=float, help="Pixels per update."),
        click.option(
            "--pixel", default="8/255", show_default=True, metavar="R",
            help="Pixel radius, of images in [0, 1]: 8/255 or 0.03."
        ),
        click.option("--pixel-norm", type=_choice(Norm), default="linf", show_default=True),
        click.option("--pixel-step", type=float, help="Image units per update."),
        click.option("--order", type=_choice(Order)),
        click.option("--composition", type=_choice(Composition)),
        click.option("--flow-objective", type=_choice(Objective)),
        click.option("--pixel-objective", type=_choice(Objective)),
        click.option("--start", type=_choice(Start), default="random", show_default=True),
        click.option("--keep", type=_choice(Keep), help="Which iterate is the result."),
        click.option("--simultaneous", is_flag=True, help="Both updates from one gradient."),
        click.option("--redraw-targets", is_flag=True, help="New targets in every iteration."),
    ]
)  # fmt: skip


def steps_option(default: int) -> Callable[[Function], Function]:
    """Add --steps, one of the options that `attack_config` reads."""
    return click.option("--steps", type=int, default=default, show_default=True)


def attack_config(given: dict[str, Any]) -> AttackConfig:
    """Return the configuration that the options of `attack_options` say; they are taken out."""
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
            help="Subtracted after --scale: one number, or one a channel. [default: 0]"
        ),
        click.option("--std", type=read_numbers, default="1", metavar="NUMBERS",
            help="Divided by at last, likewise. [default: 1]"),
        click.option(
            "--scale", type=float, default=1.0,
            help="The model sees (image * scale - mean) / std, with image in [0, 1]; 255 where it "
            "takes 8-bit levels. [default: 1]"
        ),
        click.option("--layout", type=_choice(Layout), default="nchw", show_default=True),
        click.option("--channels", type=_choice(Channels), default="rgb", show_default=True),
        click.option("--logits", metavar="NAME", help="The output that holds the logits."),
        click.option(
            "--outputs", type=_choice(Outputs),
            help="What that output holds; of probabilities the values before the softmax are "
            "attacked. [default: logits, but a softmax and the like are refused unsaid]"
        ),
        click.option(
            "--size", type=read_size, metavar="SIZE",
            help="HEIGHT,WIDTH where the model leaves them open."
        ),
    ]
)  # fmt: skip


def preprocessing(given: dict[str, Any]) -> Preprocessing:
    """Return what the options of `model_options` say, but for the size; they are taken out."""
    names = ("mean", "std", "scale", "layout", "channels", "logits", "outputs")
    return Preprocessing(**{name: given.pop(name) for name in names})


precision_option = click.option(
    "--precision", type=click.Choice(["float32", "float16", "bfloat16"]),
    help="What the network and its gradient are computed in. [default: the model's own]"
)  # fmt: skip


on_error_option = click.option(
    "--on-error", type=click.Choice(["stop", "skip"]), default="stop", show_default=True,
    help="At an image that cannot be used."
)  # fmt: skip


class_order_option = click.option(
    "--class-order", type=click.Choice(["natural", "sorted"]),
    help="How class folders are numbered: 1, 2, 10, or 1, 10, 2 as torchvision, Keras and Hugging "
    "Face do. Has to be said where the two differ."
)  # fmt: skip


source_options = options(
    [
        click.option(
            "--resize", type=read_side, metavar="SIDE", help="Resize the shorter side, pixels."
        ),
        click.option("--crop", type=read_size, metavar="SIDE", help="Crop the centre, pixels."),
        click.option(
            "--labels", type=click.Choice(["source", "predicted"]), default="source",
            show_default=True, help="What the label of an image is."
        ),
        click.option(
            "--classes", type=PATH,
            help="What class folders mean: a line for each class of the model, in its order, or "
            "JSON {name: class}."
        ),
        class_order_option,
        click.option("--seed", type=int, default=0, show_default=True),
        click.option("--epoch", type=int, default=0, help="Another epoch draws other starts."),
    ]
)  # fmt: skip


def open_images(source: Path, say: Callable[[str], object] | None = None) -> "Source":
    """Return the images of SOURCE; say in one line which files there are not read.

    Args:
        source: what jataug.data.open_source takes.
        say: hears the line; by default it goes to stderr.
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
    """Say in one line how the first classes are numbered, where they have names.

    Args:
        source: of the images.
        given: the options of `source_options`.
        say: hears the line; by default it goes to stderr.
    """
    from jataug.data import class_map, first_classes

    if given["labels"] != "source":
        return
    meaning = class_map(source, None, given["classes"], given["class_order"])
    if line := first_classes(meaning.names):
        click.echo(line, err=True) if say is None else say(line)


device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda (experimental) or cuda:<i>.",
)


threads_option = click.option(
    "--threads", type=int, metavar="N", help="Of the runtime. [default: its own choice]"
)


backend_option = click.option(
    "--backend", type=click.Choice(BACKENDS), default="onnxruntime", show_default=True,
    help="The runtime that attacks; another one is another data set."
)  # fmt: skip
