"""The command group `jataug`, which loads each command when it is asked for."""

import difflib
from importlib import import_module
from typing import Any

import click

import jataug

from .command import Command, Refused, in_one_line

__all__ = ["main"]

_COMMANDS = {
    "export": "write the joint attack on a model as an ONNX file",
    "differentiate": "write a model's gradient as an ONNX file",
    "generate": "precompute an adversarial data set",
    "verify": "check a data set: files, labels, budgets",
    "train": "train a classifier, with or without attacks; resumes",
    "preview": "draw a few images, their flows and perturbations",
    "evaluate": "measure how robust models are",
    "runtimes": "list the installed runtimes and check each",
    "inspect": "describe a model, an attack artifact or a data set",
    "demo": "run everything once on the model and images in the package",
}


class _Group(click.Group):
    """A group that imports a command's module only when it is needed, so that --help is fast."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with in_one_line("jataug"):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with in_one_line("jataug"):
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            close = difflib.get_close_matches(name, _COMMANDS, 1)
            meant = f"did you mean {close[0]}?" if close else f"commands are {', '.join(_COMMANDS)}"
            raise Refused(f"no such command {name!r}; {meant}")
        command = import_module(f".{name}", __package__).command
        if not isinstance(command, Command):
            raise TypeError(f"{name}: expected a Command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(jataug.__version__, prog_name="jataug")
def main() -> None:
    """Joint adversarial attacks (flow-field warp and pixels) as ONNX files.

    \b
    jataug export model.onnx -o attack.onnx --preset evaluation
    jataug generate attack.onnx photos/ adversarial/ --resize 256 --crop 224
    jataug verify adversarial/

    Exit codes: 0 success, 1 a check failed, 2 wrong usage or input, 130 stopped.
    """
