"""jataug runtimes."""

import json
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from .command import Command, FailedCheck
from .options import PATH

if TYPE_CHECKING:
    from jataug.selfcheck import Row, Survey

__all__ = ["command"]


@click.command("runtimes", cls=Command)
@click.argument("artifact", type=PATH, required=False)
@click.option(
    "--only", multiple=True, metavar="NAME",
    help="Check only this runtime or provider, and fail if it is missing. Repeatable. [default: "
    "all that are installed]"
)  # fmt: skip
@click.option(
    "--threads", type=int, metavar="N",
    help="Threads of each runtime. [default: the runtime's own choice]"
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    artifact: Path | None, only: tuple[str, ...], threads: int | None, as_json: bool
) -> None:
    """List the installed runtimes and providers, and check each with one call of ARTIFACT.

    The check compares loss, logits and update with those of ONNX Runtime on the CPU without graph
    optimisation. ARTIFACT defaults to an attack on the demo classifier. The exit code is 1 if a
    runtime gives wrong results. A runtime that cannot run ARTIFACT is listed with the reason.

    \b
    jataug runtimes
    jataug runtimes attack.onnx --json
    jataug runtimes attack.onnx --only CUDAExecutionProvider
    """
    from jataug.selfcheck import survey

    with ExitStack() as stack:
        if artifact is None:
            from jataug.demo import demo_artifact

            folder = stack.enter_context(TemporaryDirectory())
            artifact = demo_artifact(Path(folder) / "demo.onnx")
        found = survey(artifact, only, threads=threads)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=1))
    else:
        _print(found)
    if not found.ok:
        wrong = [f"{r.runtime} {r.provider}" for r in found.rows if r.status == "wrong"]
        raise FailedCheck(f"wrong results on {', '.join(wrong)}; do not use it for this artifact")


def _print(found: "Survey") -> None:
    click.echo(f"{'runtime':<20} {'provider':<24} {'':<14} {'values':>8} {'moved':>8} {'ms':>9}")
    for row in found.rows:
        name = f"{row.runtime} {row.version or ''}".strip()
        click.echo(f"{name:<20} {row.provider:<24} {row.status:<14} {_numbers(row)}".rstrip())
        if row.reason and row.reason != row.status:
            click.echo(f"  {row.reason}")
    click.echo()
    click.echo(f"compared with {found.golden}")
    click.echo(
        f"values: largest difference of loss and logits, relative to the largest value, at most "
        f"{found.values:g}; moved: part of the update that differs, at most {found.moved:g}; ms: "
        "time for one image"
    )


def _numbers(row: "Row") -> str:
    if row.values is None or row.moved is None or row.milliseconds is None:
        return ""
    return f"{row.values:>8.1e} {row.moved:>8.4f} {row.milliseconds:>9.2f}"
