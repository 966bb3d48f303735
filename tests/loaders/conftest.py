"""The world of loading.py, made once, or by another process (JATAUG_LOADERS_WORLD)."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading import make_world

import jataug


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """source.npz, attack.onnx, turned.onnx, and a data set for each format; read only."""
    made = os.environ.get("JATAUG_LOADERS_WORLD")
    return Path(made) if made else make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def source(world: Path) -> dict[str, Any]:
    """The clean images, (40, 10, 12, 3) uint8, and their labels."""
    with np.load(world / "source.npz") as file:
        return {"image": file["images"], "label": file["labels"].astype(np.int64)}


@pytest.fixture(scope="session")
def stored(world: Path) -> list[Any]:
    """The adversarial samples, as jataug.open_dataset gives them."""
    return list(jataug.open_dataset(world / "folder"))


@pytest.fixture
def copied(world: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A data set of a format that a test may damage."""
    return lambda form: Path(shutil.copytree(world / form, tmp_path / form))
