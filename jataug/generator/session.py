"""What the generator needs of a session, and how it opens one."""

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL

from ..config import AttackConfig
from ..errors import DataError
from .plan import digest
from .store import file_hash

__all__ = ["AttackSession", "artifact_hash", "environment", "opened"]


class AttackSession(Protocol):
    """The part of jataug.Session that the generator uses."""

    @property
    def config(self) -> AttackConfig: ...
    @property
    def manifest(self) -> Mapping[str, Any]: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def classes(self) -> int: ...
    @property
    def providers(self) -> Sequence[str]: ...

    def attack(
        self,
        images: Any,
        labels: Any = None,
        indices: Any = None,
        *,
        seed: int = 0,
        epoch: int = 0,
    ) -> Any:
        """Return an AttackResult."""

    def predict(self, images: Any) -> Any:
        """Return logits: (batch, classes), float32."""


@contextmanager
def opened(
    artifact: str | PathLike[str] | None,
    session: AttackSession | None,
    *,
    batch_size: int,
    device: str,
) -> Iterator[AttackSession]:
    """Yield `session`, or one opened from `artifact` and closed at the end."""
    if session is not None:
        size = getattr(session, "batch_size", batch_size)
        if size != batch_size:
            raise DataError(
                f"session: expected one opened with batch_size={batch_size}, the plan's, got {size}"
            )
        yield session
        return
    if artifact is None:
        raise DataError("artifact: expected the path of an attack artifact or a session, got None")
    from ..runtime import Session

    with Session.open(Path(artifact), device=device, batch_size=batch_size) as own:
        yield own


def artifact_hash(artifact: str | PathLike[str] | None, session: AttackSession) -> str:
    """Return the sha256 of the artifact's file, or of the manifest where there is no file."""
    found = None if artifact is None else file_hash(Path(artifact))
    return found or digest(session.manifest)


def environment(session: AttackSession) -> dict[str, Any]:
    """Return the build that decides the last bits: versions, provider and processor type."""
    from .. import __version__

    # Read, not imported: a session of another runtime does not need onnxruntime.
    onnxruntime = sys.modules.get("onnxruntime")
    return {
        "jataug": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "onnxruntime": getattr(onnxruntime, "__version__", None),
        "providers": list(session.providers),
        "platform": f"{platform.system()} {platform.machine()}",
    }
