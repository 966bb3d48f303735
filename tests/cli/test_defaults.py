"""An option that is left out means what the argument of Python means that is left out."""

import inspect

import click
import pytest

from jataug.cli import main
from jataug.evaluation import evaluate
from jataug.generator import generate
from jataug.trainer import TrainConfig


def defaults(name, folder):
    """Return what a command takes where nothing but its arguments is given."""
    context = click.Context(main)
    command = main.get_command(context, name)
    words = [str(folder) for p in command.params if isinstance(p, click.Argument)]
    if any(p.name == "output" for p in command.params):
        words += ["-o", str(folder)]
    return command.make_context(name, words, parent=context).params


@pytest.mark.parametrize(
    ("name", "call"), [("generate", generate), ("evaluate", evaluate), ("train", TrainConfig)]
)
def test_the_defaults_of_a_command_are_those_of_python(name, call, tmp_path):
    stated = {
        parameter.name: parameter.default
        for parameter in inspect.signature(call).parameters.values()
        if parameter.default is not inspect.Parameter.empty
    }
    given = defaults(name, tmp_path)
    shared = (given.keys() & stated.keys()) - {"output", "mixture", "model_options", "attack"}
    assert len(shared) >= 10
    # An option may be text that Python takes as a number too, and a repeated one is empty.
    differ = {
        key: (given[key], stated[key])
        for key in shared
        if str(given[key] or None) != str(stated[key] or None)
    }
    assert not differ
