"""What the generator needs of a session, and how it opens one."""

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
    "opened",
    "out_of_memory",
]

_EXHAUSTED = re.compile(
    r"failed to allocate memory|out of memory|bad_alloc|memory allocation|ALLOC_FAILED"
    r"|available memory of \d+ is smaller",
    re.IGNORECASE,
)
"""What ONNX Runtime, CUDA and cuDNN say when there is no memory left."""


class AttackSession(Protocol):
    """The part of jataug.Session that the generator uses."""

    @property
    def config(self) -> AttackConfig: ...
    @property
    def manifest(self) -> Mapping[str, Any]:
        """Tells one attack from another: a run is resumed where it is equal."""

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
        artifact: the path of the attack.
        batch_size: images per call of the runtime.
        device: "auto", "cpu", "cuda" or "cuda:1".
        threads: of the runtime's own pool; None leaves the choice to it.
        backend: "onnxruntime" or "openvino".
        tf32: let CUDA round products to TF32.
    """

    artifact: Path
    batch_size: int
    device: str
    threads: int | None
    backend: str = "onnxruntime"
    tf32: bool = False

    def open(self, batch_size: int | None = None) -> Any:
        """Return a session; it takes memory with the first batch."""
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
    """A session that calls the runtime with smaller batches once the device has run out of memory.

    Args:
        reopen: returns a session for a batch size.
        batch_size: to begin with.
        note: hears about it, in one line.

    Attributes:
        reduced: the smaller batch size; None as long as there is memory enough.
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
                f"out of memory on the device with a batch of {self._size}, which cannot be less: "
                f"{line}; use another --device, or a smaller model"
            ) from error
        self.note(
            f"out of memory on the device: the model is called with {size} images instead of "
            f"{self._size}; single pixels may differ from a run that had memory enough"
        )
        self._size = self.reduced = size


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, whichever type its runtime gives it."""
    return isinstance(error, MemoryError) or bool(_EXHAUSTED.search(str(error)))


@contextmanager
def opened(
    opening: Opening | None,
    session: AttackSession | None,
    *,
    batch_size: int,
    note: Callable[[str], object] = lambda _: None,
) -> Iterator[AttackSession]:
    """Yield `session`, or one that `opening` opens, closed at the end."""
    if session is not None:
        size = getattr(session, "batch_size", batch_size)
        if size != batch_size:
            raise DataError(
                f"session: expected one opened with batch_size={batch_size}, the plan's, got {size}"
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
    """Return the sha256 of the artifact's file, or of the manifest where there is no file."""
    found = None if artifact is None else hash_file(Path(artifact))
    if not found and not session.manifest:
        raise DataError("session: expected a manifest that tells the attack, got an empty one")
    return found or digest(session.manifest)


def check_session(artifact: str | PathLike[str], session: AttackSession) -> None:
    """Refuse a session that was opened on something else than the artifact of the plan.

    Raises:
        DataError: it was.
        ArtifactError: the artifact cannot be read.
    """
    model, _ = load_artifact(Path(artifact))
    if session.manifest.get("graph_sha256") != graph_digest(model):
        raise DataError(
            f"session: expected one that was opened on {artifact}, got another; give None as the "
            "artifact"
        )


def environment(session: AttackSession, threads: int | None) -> dict[str, Any]:
    """Return the build that decides the last bits: versions, provider and processor type, threads.

    Args:
        session: that made the images.
        threads: of the runtime's pool, as planned.
    """
    from .. import __version__

    # Read, not imported: a session that a caller made needs none of them.
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
        # Left to itself, the runtime starts as many threads as there are cores.
        "threads": threads or f"as many as suit {os.cpu_count()} processors",
        **({"reduced_batch": reduced} if isinstance(reduced, int) else {}),
    }
