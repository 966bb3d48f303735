"""Artifacts for the tests of sessions: exported once each, without the checks of the export."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jataug import AttackConfig, Session
from jataug.export import export_attack

from .sessions import CONFIG


@pytest.fixture(scope="session")
def exported_attack(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return (model path, config, **export options) -> the path of the artifact; read only."""
    folder = tmp_path_factory.mktemp("attacks")
    known: dict[str, Path] = {}

    def export(model: Path, config: AttackConfig, **options: Any) -> Path:
        key = repr((str(model), config, sorted(options.items())))
        if key not in known:
            known[key] = folder / f"{len(known)}.onnx"
            export_attack(model, config, known[key], check=False, **options)
        return known[key]

    return export


@pytest.fixture(scope="session")
def path(tiny_net: Any, exported_attack: Callable[..., Path]) -> Path:
    """The artifact of sessions.CONFIG on the tiny net."""
    return exported_attack(tiny_net.path, CONFIG)


@pytest.fixture(scope="module")
def session(path: Path) -> Iterator[Session]:
    with Session.open(path, device="cpu") as opened:
        yield opened
