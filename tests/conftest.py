"""Fixtures for real material; see material.py for what each one is."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import material
import pytest


def _have(make: Callable[..., Any], *args: Any) -> Any:
    try:
        return make(*args)
    except material.UnavailableError as error:
        if os.environ.get("CI") == "true" or os.environ.get("JATAUG_REQUIRE_MATERIAL") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def have() -> Callable[..., Any]:
    """Material that a test asks for by itself, or the reason why there is none."""
    return _have


@pytest.fixture(scope="session")
def efficientnet_lite0() -> material.Model:
    return _have(material.efficientnet_lite0)


@pytest.fixture(scope="session")
def resnet18_cifar() -> material.Model:
    return material.resnet18_cifar()


@pytest.fixture(scope="session")
def demo_classifier() -> material.Model:
    return material.demo_classifier()


@pytest.fixture(scope="session")
def demo_images() -> tuple[Any, Any]:
    return material.demo_images()


@pytest.fixture(scope="session")
def tiny_net() -> material.Model:
    return material.tiny()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat folder of 15 photographs; read only."""
    folder = tmp_path_factory.mktemp("photos")
    material.photos(folder)
    return folder


@pytest.fixture(scope="session")
def traffic_lights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders green, red, yellow with 297 photos; read only."""
    return _have(material.traffic_lights, tmp_path_factory.mktemp("traffic_lights"))


@pytest.fixture(scope="session")
def fashion_mnist() -> Path:
    folder = material.fashion_mnist()
    if folder is None:
        # The only material that pip cannot bring: CI alone does not make it required.
        reason = "Debian package dataset-fashion-mnist is not installed"
        if os.environ.get("JATAUG_REQUIRE_MATERIAL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
