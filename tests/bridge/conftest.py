"""Fixtures for the bridge: attack libraries, and the shipped classifier's images as tensors."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import material
import pytest
import torch

from jataug.bridge import OnnxModule

from . import peers


def _have(get: Callable[..., Any], *args: str) -> Any:
    try:
        return get(*args)
    except material.UnavailableError as error:
        if os.environ.get("CI") == "true" or os.environ.get("JATAUG_REQUIRE_MATERIAL") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def peer() -> Callable[..., list[Any]]:
    """peer("art", "art.utils"): modules of a library in peers.PEERS."""
    return lambda name, *modules: _have(peers.imported, name, *modules)


@pytest.fixture(scope="session")
def peer_site() -> Callable[[str], Path]:
    return lambda name: _have(peers.site, name)


@pytest.fixture(scope="session")
def tiny(tiny_net: material.Model) -> OnnxModule:
    return OnnxModule(tiny_net.path, threads=1)


@pytest.fixture(scope="session")
def labelled(demo_images: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """48 images (48, 1, 28, 28) in [0, 1], and their labels."""
    levels, labels = (torch.from_numpy(array[:48]) for array in demo_images)
    return levels[:, None].float() / 255, labels
