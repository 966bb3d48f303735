"""The session interface that the generator uses, and functions that open and describe sessions."""

import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL

from ..artifact import graph_digest, load_artifact
from ..atomic import hash_file
from ..checks import digest
from ..config import AttackConfig
from ..errors import DataError, RuntimeUnavailable

__all__ = [
    "AttackSession",
    "ElasticSession",
    "Opening",
    "artifact_hash",
    "check_session",
    "environment",
    "open_session",
    "out_of_memory",
]

_EXHAUSTED = re.compile(
    r"failed to allocate memory|out of memory|bad_alloc|memory allocation|ALLOC_FAILED"
    r"|available memory of \d+ is smaller",
    re.IGNORECASE,
)
"""Messages of ONNX Runtime, CUDA and cuDNN when memory runs out."""


class AttackSession(Protocol):
    """The part of jataug.Session that the generator uses."""

    @property
    def config(self) -> AttackConfig: ...
    @property
    def manifest(self) -> Mapping[str, Any]:
        """The attack's manifest. A run is resumed only if it is equal."""

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


@dataclass(frozen=True)
class Opening:
    """How a worker opens its session.

    Attributes:
        artifact: path of the attack.
        batch_size: images per call of the runtime.
        device: "auto", "cpu", "cuda" or "cuda:<i>".
        threads: threads of the runtime; None leaves the choice to the runtime.
        backend: "onnxruntime" or "openvino".
        tf32: allow TF32 on CUDA.
    """

    artifact: Path
    batch_size: int
    device: str
    threads: int | None
    backend: str = "onnxruntime"
    tf32: bool = False

    def open(self, batch_size: int | None = None) -> Any:
        """Return an open session. It allocates memory with its first batch."""
        from ..runtime import Session

        size = batch_size or self.batch_size
        return Session.open(
            self.artifact,
            backend=self.backend,
            device=self.device,
            batch_size=size,
            threads=self.threads,
            tf32=self.tf32,
        )


class ElasticSession:
    """A session that uses smaller batches after the device has run out of memory.

    Args:
        reopen: returns a session for a batch size.
        batch_size: initial batch size.
        note: called with one line for the user when the batch size is reduced.

    Attributes:
        reduced: the reduced batch size; None if memory never ran out.
    """

    def __init__(
        self,
        reopen: Callable[[int], Any],
        batch_size: int,
        note: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._reopen, self._size, self.note = reopen, batch_size, note
        self._session = reopen(batch_size)
        self.reduced: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def attack(self, *args: Any, **options: Any) -> Any:
        """Return an AttackResult."""
        return self._enough(lambda: self._session.attack(*args, **options))

    def predict(self, images: Any) -> Any:
        """Return logits: (batch, classes), float32."""
        return self._enough(lambda: self._session.predict(images))

    def close(self) -> None:
        """Release the runtime."""
        self._session.close()

    def _enough(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._halve(error)

    def _halve(self, error: Exception) -> None:
        size = self._size // 2
        self._session.close()
        if size:
            self._session = self._reopen(size)
        if not size or getattr(self._session, "batch_size", size) != size:
            line = " ".join(str(error).split())
            raise RuntimeUnavailable(
                f"out of memory on the device with a batch of {self._size}, which cannot be "
                f"reduced: {line}; use another --device, or a smaller model"
            ) from error
        self.note(
            f"out of memory on the device: the batch size is now {size} instead of {self._size}; "
            "single pixels may differ from a run with enough memory"
        )
        self._size = self.reduced = size


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, whatever its type."""
    return isinstance(error, MemoryError) or bool(_EXHAUSTED.search(str(error)))


@contextmanager
def open_session(
    opening: Opening | None,
    session: AttackSession | None,
    *,
    batch_size: int,
    note: Callable[[str], object] = lambda _: None,
) -> Iterator[AttackSession]:
    """Yield `session`, or a session that `opening` opens and that is closed at the end."""
    if session is not None:
        size = getattr(session, "batch_size", batch_size)
        if size != batch_size:
            raise DataError(
                f"session: expected batch_size={batch_size}, as in the plan, got {size}"
            )
        yield session
        return
    if opening is None:
        raise DataError("artifact: expected the path of an attack artifact or a session, got None")
    own: Any = ElasticSession(opening.open, opening.batch_size, note)
    try:
        yield own
    finally:
        own.close()


def artifact_hash(artifact: str | PathLike[str] | None, session: AttackSession) -> str:
    """Return the sha256 of the artifact's file, or of the manifest if there is no file."""
    found = None if artifact is None else hash_file(Path(artifact))
    if not found and not session.manifest:
        raise DataError("session: expected a manifest that describes the attack, got an empty one")
    return found or digest(session.manifest)


def check_session(artifact: str | PathLike[str], session: AttackSession) -> None:
    """Check that a session was opened on the artifact.

    Raises:
        DataError: it was opened on another one.
        ArtifactError: the artifact cannot be read.
    """
    model, _ = load_artifact(Path(artifact))
    if session.manifest.get("graph_sha256") != graph_digest(model):
        raise DataError(
            f"session: it was opened on another artifact than {artifact}; give None as the "
            "artifact to use the session"
        )


def environment(session: AttackSession, threads: int | None) -> dict[str, Any]:
    """Return the versions, providers, platform and threads, on which the exact bytes depend.

    Args:
        session: the session that made the images.
        threads: planned number of runtime threads, or None.
    """
    from .. import __version__

    # Not imported here, because a caller's own session may need neither runtime.
    backend = getattr(session, "backend", "onnxruntime")
    runtime = getattr(sys.modules.get(backend), "__version__", None)
    reduced = getattr(session, "reduced", None)
    return {
        "jataug": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        backend: runtime,
        "providers": list(session.providers),
        "platform": f"{platform.system()} {platform.machine()}",
        # By default the runtime starts one thread per core.
        "threads": threads or f"as many as suit {os.cpu_count()} processors",
        **({"reduced_batch": reduced} if isinstance(reduced, int) else {}),
    }
