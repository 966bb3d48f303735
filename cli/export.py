"""jataug export."""

from pathlib import Path
from typing import Any, get_args

import click

from jataug.artifact import Form

from .command import Command
from .options import PATH, attack_config, attack_options, model_options, preprocessing

__all__ = ["command"]


@click.command("export", cls=Command)
@click.argument("model", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The artifact to write.")
@attack_options
@click.option("--form", type=click.Choice(get_args(Form)), default="step", show_default=True)
@model_options
@click.option("--float32", is_flag=True, help="Compute a float16 model in float32.")
@click.option("--device", default="cpu", show_default=True, help="Where the self-check runs.")
@click.option("--no-check", is_flag=True, help="Write the file without the gradient self-check.")
def command(model: Path, output: Path, **given: Any) -> None:
    """Write the joint attack on MODEL, with its gradient graph, as an ONNX file.

    MODEL is a classifier as an .onnx file. What it wants done to images in [0, 1] goes inside.

    \b
    jataug export resnet50.onnx -o attack.onnx --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    jataug export lite0.onnx -o attack.onnx --scale 255 --mean 127 --std 128 --preset evaluation
    """
    from jataug.export import export_attack

    config, prepared = attack_config(given), preprocessing(given)
    manifest = export_attack(
        model,
        config,
        output,
        preprocessing=prepared,
        form=given["form"],
        max_flow=given["max_flow"],
        size=given["size"],
        float32=given["float32"],
        check=not given["no_check"],
        device=given["device"],
    )
    channel, height, width = manifest.image_shape
    size = output.stat().st_size
    click.echo(f"{output}: {manifest.form}, {size / 1e6:.1f} MB")
    click.echo(f"  images     {channel} x {height} x {width}, {manifest.classes} classes")
    click.echo(
        f"  budgets    flow {config.flow.radius:g} px {config.flow.norm} (at most "
        f"{manifest.max_flow_radius:g}), pixel {config.pixel.radius:.5g} {config.pixel.norm}"
    )
    click.echo(
        f"  gradient   {'checked on ' + manifest.checked if manifest.checked else 'not checked'}"
    )
