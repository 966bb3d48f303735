"""jataug differentiate."""

from pathlib import Path

import click

from .command import Command
from .options import PATH

__all__ = ["command"]


@click.command("differentiate", cls=Command)
@click.argument("model", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The gradient graph to write.")
@click.option("--wrt", metavar="NAME", help="The input; default the only floating-point one.")
@click.option("--of", metavar="NAME", help="The output; default the only one.")
def command(model: Path, output: Path, wrt: str | None, of: str | None) -> None:
    r"""Write the gradient of MODEL, its vector-Jacobian product, as an ONNX file.

    It has one input more, grad_<output>, and one output more, grad_<input>.

    \b
    jataug differentiate model.onnx -o gradient.onnx
    """
    from jataug.export import differentiate
    from jataug.export.save import save_model

    gradient = differentiate(model, wrt, of)
    save_model(gradient, output)
    inputs = ", ".join(value.name for value in gradient.graph.input)
    outputs = ", ".join(value.name for value in gradient.graph.output)
    click.echo(f"{output}: {len(gradient.graph.node)} nodes; {inputs} -> {outputs}")
