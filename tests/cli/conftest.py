"""Running the command line in this process, and an artifact of the shipped classifier."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import jataug
from jataug.cli import main

DEMO = Path(jataug.__file__).parent / "demo"


@pytest.fixture(scope="session")
def run() -> Callable[..., Result]:
    def call(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words])

    return call


@pytest.fixture(scope="session")
def artifact(run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "attack.onnx"
    options = ("--preset", "evaluation", "--steps", "3", "--max-flow", "1")
    result = run("export", DEMO / "classifier.onnx", "-o", path, *options)
    assert result.exit_code == 0, result.output
    assert "checked on onnxruntime" in result.output
    return path


@pytest.fixture
def images() -> Path:
    return DEMO / "images.npz"
