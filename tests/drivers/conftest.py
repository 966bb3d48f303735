"""Drivers that are built or installed once, and an attack for them to run."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drivers import packages
from material import DEMO, UnavailableError, demo_images
from PIL import Image

from jataug import AttackConfig, FlowBudget, PixelBudget
from jataug.export import export_attack

COUNT = 5


def _have(make: Callable[..., Path], *args: Any) -> Path:
    try:
        return make(*args)
    except UnavailableError as error:
        if os.environ.get("CI") == "true" or os.environ.get("JATAUG_REQUIRE_MATERIAL") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    except packages.NoProgramError as error:
        # What no registry brings is required only where somebody says so.
        if os.environ.get("JATAUG_REQUIRE_MATERIAL") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """examples/node, ready to run."""
    return _have(packages.example, "node", tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="session")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of examples/cpp."""
    return _have(packages.compiled, tmp_path_factory.mktemp("cpp"))


@pytest.fixture(scope="session")
def browser_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """examples/browser, ready to build a site."""
    return _have(packages.example, "browser", tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="session")
def chromium() -> Path:
    return _have(lambda: Path(packages.program("chromium")))


@pytest.fixture(scope="session")
def attack_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An attack on the demo classifier, of the form "step"."""
    path = tmp_path_factory.mktemp("attack") / "attack.onnx"
    config = AttackConfig.preset(
        "evaluation", flow=FlowBudget(0.3), pixel=PixelBudget("8/255"), steps=4
    )
    export_attack(DEMO / "classifier.onnx", config, path, max_flow=1.0)
    return path


@pytest.fixture(scope="session")
def levels() -> np.ndarray:
    """Images of the demo classifier: (COUNT, 28, 28, 1), uint8."""
    return demo_images()[0][:COUNT, :, :, None]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory, levels: np.ndarray) -> Path:
    """The same, as 7.png, 8.png, 9.png, 10.png, 11.png and as .pgm: in natural order."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, image in enumerate(levels):
        for suffix in ("png", "pgm"):
            Image.fromarray(image[:, :, 0]).save(folder / f"{index + 7}.{suffix}")
    return folder
