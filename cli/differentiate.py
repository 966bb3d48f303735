"""jataug differentiate."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import Command
from .options import PATH, precision_option, read_size

if TYPE_CHECKING:
    from jataug.export.model.element_types.precision import Precision

__all__ = ["command"]


@click.command("differentiate", cls=Command)
@click.argument("model", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Gradient graph to write.")
@click.option(
    "--wrt", metavar="NAME",
    help="Input to differentiate with respect to. [default: the only floating-point input]",
)  # fmt: skip
@click.option("--of", metavar="NAME", help="Output to differentiate. [default: the only output]")
@click.option(
    "--size", type=read_size, metavar="SIZE",
    help="Image size in pixels, SIDE or HEIGHT,WIDTH, if the model leaves it open.",
)  # fmt: skip
@precision_option
@click.option(
    "--device", default="cpu", show_default=True,
    help="Device of the gradient self-check: auto, cpu, cuda or cuda:<i>.",
)  # fmt: skip
@click.option("--no-check", is_flag=True, help="Skip the gradient self-check. Not recommended.")
def command(
    model: Path,
    output: Path,
    wrt: str | None,
    of: str | None,
    size: tuple[int, int] | None,
    precision: "Precision | None",
    device: str,
    no_check: bool,
) -> None:
    """Write the gradient of MODEL, its vector-Jacobian product, as an ONNX file.

    The new graph has all inputs and outputs of MODEL, the input grad_<output> and the output
    grad_<input>. The command first compares the gradient with finite differences and the output
    with that of MODEL. If they disagree, it writes nothing and the exit code is 1.

    \b
    jataug differentiate model.onnx -o gradient.onnx
    """
    from jataug.export.check.agreement import check_prepared
    from jataug.export.check.differentiation import check_vjp, report
    from jataug.export.gradient.differentiate import vjp
    from jataug.export.model.element_types.precision import float32_twin, is_half, prepare_in
    from jataug.export.model.load import load_model
    from jataug.export.model.validity import explain_invalid
    from jataug.export.save import check_destination, save_model

    check_destination(output, model)
    proto = load_model(model)
    options = {"wrt": wrt, "of": of, "size": size}
    with explain_invalid(proto):
        network = prepare_in(precision, proto, **options)
        gradient, checked, unknown = vjp(network), None, None
        if not no_check:
            unknown = check_prepared(proto, network, precision, options, device)
            checked = check_vjp(gradient, network, device, float32_twin(network, proto, **options))
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
        twin = " of its float twin" if found.straight_through or is_half(network) else ""
        click.echo(f"  gradient   off by {checked[1]:.2%} from differences{twin}, on {checked[0]}")
    if unknown:
        click.echo(f"  output     not compared with the model's: {unknown}")


def _counts(ops: dict[str, int]) -> str:
    return ", ".join(f"{op} {count}" for op, count in ops.items())
