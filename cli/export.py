"""jataug export."""

from pathlib import Path
from typing import Any, get_args

import click

from jataug.artifact import Form, Manifest
from jataug.budget import FlowBudget, PixelBudget
from jataug.config import AttackConfig
from jataug.preprocessing import Preprocessing

from .command import Command
from .options import (
    PATH,
    attack_config,
    attack_options,
    model_options,
    precision_option,
    preprocessing,
    steps_option,
)

__all__ = ["command"]


@click.command("export", cls=Command)
@click.argument("model", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Attack artifact to write.")
@attack_options
@steps_option(10)
@click.option(
    "--max-flow", metavar="R",
    help="Largest flow radius, in pixels, that the artifact accepts later. [default: that of "
    "--flow]",
)  # fmt: skip
@click.option(
    "--form", type=click.Choice(get_args(Form)), default="step", show_default=True,
    help="step runs one iteration per call; loop and unrolled run the whole attack in one call. "
    "Use step with jataug.",
)  # fmt: skip
@click.option(
    "--for", "target", type=click.Choice(["cpu", "cuda", "portable"]), default="cpu",
    show_default=True,
    help="cpu writes nodes that run everywhere and are fastest on a CPU; cuda writes those that "
    "are fastest on CUDA. portable refuses models with operators that ONNX Runtime (also in "
    "browsers and Node.js), OpenVINO or tract lacks.",
)  # fmt: skip
@model_options
@precision_option
@click.option(
    "--device", default="cpu", show_default=True,
    help="Device of the gradient self-check: auto, cpu, cuda or cuda:<i>.",
)  # fmt: skip
@click.option("--no-check", is_flag=True, help="Skip the gradient self-check. Not recommended.")
@click.option(
    "--save-model", type=PATH,
    help="Also write the classifier as ONNX, if MODEL is a training run.",
)  # fmt: skip
def command(model: Path, output: Path, **given: Any) -> None:
    """Write the joint attack on MODEL, with its gradient graph, as an ONNX file.

    MODEL is a classifier as an .onnx file, or the folder of a training run. The preprocessing
    options (--mean, --std, --scale, --layout, --channels) become part of the artifact, which takes
    images in [0, 1]. A training run supplies its own budgets; options override them.

    \b
    jataug export resnet50.onnx -o attack.onnx \\
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    jataug export lite0.onnx -o attack.onnx --preset evaluation \\
        --scale 255 --mean 127 --std 128
    jataug export run/ -o attack.onnx --save-model model.onnx
    """
    from jataug.export import export_attack

    network, example = model, None
    if model.is_dir():
        network, example, config = _of_run(model, given)
    else:
        config = attack_config(given)
    prepared, there = preprocessing(given), output.exists()
    if given["save_model"] is not None:
        _save_model(network, example, given["save_model"])
    manifest = export_attack(
        network,
        config,
        output,
        example=example,
        preprocessing=prepared,
        form=given["form"],
        max_flow=given["max_flow"],
        size=given["size"],
        precision=given["precision"],
        check=not given["no_check"],
        device=given["device"],
        target=given["target"],
    )
    replaced = "; the file that was there is replaced" if there else ""
    click.echo(f"{output}: {manifest.form}, {output.stat().st_size / 1e6:.1f} MB{replaced}")
    _print(manifest, config)


def _print(manifest: Manifest, config: AttackConfig) -> None:
    channel, height, width = manifest.image_shape
    click.echo(f"  images     {channel} x {height} x {width}, {manifest.classes} classes")
    if manifest.precision in ("float16", "bfloat16"):
        click.echo(f"  network    in {manifest.precision}; warp, loss and update in float32")
    click.echo(f"  model sees {_seen(manifest.preprocessing, channel)}")
    click.echo(
        f"  budgets    flow {config.flow.radius:g} px {config.flow.norm} (at most "
        f"{manifest.max_flow_radius:g}), pixel {config.pixel.radius:.5g} {config.pixel.norm}"
    )
    click.echo(
        f"  gradient   {'checked on ' + manifest.checked if manifest.checked else 'not checked'}"
    )
    if manifest.straight_through:
        click.echo(f"  quantised  straight-through in {len(manifest.straight_through)} nodes")
    if manifest.logits_difference is not None:
        click.echo(
            f"  logits     beside the gradient they differ from the model's by "
            f"{manifest.logits_difference:.2%} of their span"
        )


def _seen(used: Preprocessing, channels: int) -> str:
    """Return a description of the network's input: channels, layout and range of values."""
    kind = {1: "grey", 3: used.channels}.get(channels, f"{channels} channels")
    ends = [
        (level * used.scale - mean) / std
        for mean, std in zip(_each(used.mean, channels), _each(used.std, channels), strict=True)
        for level in (0, 1)
    ]
    steps = {name: used.to_options().get(name) for name in ("scale", "mean", "std")}
    done = " ".join(f"--{name} {value}" for name, value in steps.items() if value is not None)
    return (
        f"{kind}, {used.layout}, values from {min(ends):.4g} to {max(ends):.4g} "
        f"({done or 'images in [0, 1] as they are; no --mean, --std or --scale'})"
    )


def _each(numbers: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return numbers * channels if len(numbers) == 1 else numbers


def _of_run(folder: Path, given: dict[str, Any]) -> tuple[Any, Any, AttackConfig]:
    """Return the network of a run, an example batch of its images, and the attack to export."""
    from jataug.trainer import load_run

    run = load_run(folder)
    source = click.get_current_context().get_parameter_source
    asked = {n for n in given if source(n) not in (None, click.core.ParameterSource.DEFAULT)}
    wanted = attack_config(given)
    mine = wanted if "preset" in asked else run.config.attack
    options = {field: getattr(wanted, field) for field in vars(wanted) if field in asked}
    for name, kind in (("flow", FlowBudget), ("pixel", PixelBudget)):
        there, here = getattr(run.config.attack, name), getattr(wanted, name)
        radius = here.radius if name in asked else there.radius
        options[name] = kind(radius, here.norm if f"{name}_norm" in asked else there.norm)
    if "steps" not in asked:
        options["steps"] = run.config.attack.steps
    return run.module, run.example, mine.replace(**options)


def _save_model(network: Any, example: Any, path: Path) -> None:
    if example is None:
        raise click.UsageError("--save-model: expected a training run as MODEL, got a file")
    from jataug.export.model.load import load_model
    from jataug.export.save import check_destination, save_model

    check_destination(path)
    save_model(load_model(network, example), path)
    click.echo(f"{path}: the classifier")
