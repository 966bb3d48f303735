"""jataug differentiate."""

from pathlib import Path

import click

from .command import Command
from .options import PATH, read_size

__all__ = ["command"]


@click.command("differentiate", cls=Command)
@click.argument("model", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="The gradient graph to write.")
@click.option("--wrt", metavar="NAME", help="The input; default the only floating-point one.")
@click.option("--of", metavar="NAME", help="The output; default the only one.")
@click.option(
    "--size", type=read_size, metavar="SIZE", help="HEIGHT,WIDTH where the model leaves them open."
)
@click.option("--float32", is_flag=True, help="Compute a float16 model in float32.")
@click.option("--device", default="cpu", show_default=True, help="Where the self-check runs.")
@click.option("--no-check", is_flag=True, help="Write the file without the gradient self-check.")
def command(
    model: Path,
    output: Path,
    wrt: str | None,
    of: str | None,
    size: tuple[int, int] | None,
    float32: bool,
    device: str,
    no_check: bool,
) -> None:
    """Write the gradient of MODEL, its vector-Jacobian product, as an ONNX file.

    It has one input more, grad_<output>, and one output more, grad_<input>. It is compared with
    finite differences first: where they disagree, nothing is written and the exit code is 1.

    \b
    jataug differentiate model.onnx -o gradient.onnx
    """
    from jataug.export.differentiate import vjp
    from jataug.export.model import load_model, prepare
    from jataug.export.report import check_vjp, report
    from jataug.export.save import check_destination, save_model
    from jataug.export.widen import widen

    check_destination(output, model)
    proto = load_model(model)
    network = prepare(widen(proto) if float32 else proto, wrt=wrt, of=of, size=size)
    gradient = vjp(network)
    checked = None if no_check else check_vjp(gradient, network, device)
    replaced = "; the file that was there is replaced" if output.exists() else ""
    save_model(gradient, output)
    found = report(network)
    inputs = ", ".join(value.name for value in gradient.graph.input)
    outputs = ", ".join(value.name for value in gradient.graph.output)
    click.echo(f"{output}: {inputs} -> {outputs}, opset {found.opset}{replaced}")
    click.echo(f"  nodes      {found.nodes}, with the gradient {len(gradient.graph.node)}")
    click.echo(f"  rules      {_counts(found.rules)}")
    click.echo(f"  flat       {_counts(found.flat) or 'none'}")
    if found.straight_through:
        click.echo(f"  estimated  straight-through in {_counts(found.straight_through)}")
    if checked is None:
        click.echo("  gradient   not checked")
    else:
        twin = " of its float twin" if found.straight_through else ""
        click.echo(f"  gradient   off by {checked[1]:.2%} from differences{twin}, on {checked[0]}")


def _counts(ops: dict[str, int]) -> str:
    return ", ".join(f"{op} {count}" for op, count in ops.items())
