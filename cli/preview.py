"""jataug preview."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import Command
from .options import (
    PATH,
    device_option,
    on_error_option,
    open_images,
    source_options,
    threads_option,
)

if TYPE_CHECKING:
    from jataug.data import Skip

__all__ = ["command"]


@click.command("preview", cls=Command)
@click.argument("attack", type=PATH)
@click.argument("source", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Picture to write, a .png file.")
@click.option("--count", type=int, default=8, show_default=True, help="Number of images.")
@source_options
@on_error_option
@device_option
@threads_option
def command(
    attack: Path,
    source: Path,
    output: Path,
    count: int,
    device: str,
    threads: int | None,
    **given: Any,
) -> None:
    """Draw a few images of SOURCE: clean, flow, perturbation and adversarial, with the model's
    predictions and confidences. ATTACK is an attack artifact.

    \b
    jataug preview attack.onnx photos/ -o grid.png \\
        --resize 256 --crop 224
    """
    from jataug.atomic import write_file
    from jataug.data import check_outside
    from jataug.errors import DataError
    from jataug.generator import preview
    from jataug.runtime import Session

    if output.suffix.lower() != ".png":
        raise DataError(f"{output}: expected a file name that ends in .png")
    with Session.open(attack, device=device, threads=threads) as session:
        images = open_images(source)
        check_outside(output, images)
        picture = preview(session, images, count, skipped=_say, **given)
    data = io.BytesIO()
    picture.save(data, "PNG")
    write_file(output, data.getvalue())
    click.echo(f"{output}: {picture.width} x {picture.height}")


def _say(skip: "Skip") -> None:
    click.echo(f"skipped: {skip.reason}", err=True)
