"""Writing a model so that a file that is there is whole."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from jataug.errors import ArtifactError

__all__ = ["check_destination", "save_model"]

_EXTERNAL = 1_000_000_000
"""Above this many bytes the weights go to a file of their own beside the model."""


def check_destination(destination: Path, source: object = None) -> None:
    """Raise ArtifactError where `destination` cannot be written, or is the `source` itself."""
    if destination.is_dir() or not destination.parent.is_dir():
        raise ArtifactError(f"{destination}: expected a file name in an existing folder")
    if destination.exists() and not destination.is_file():  # /dev/null, say: never replaced
        raise ArtifactError(f"{destination}: expected a file name, got a device or a pipe")
    if not isinstance(source, (str, Path)) or not destination.exists():
        return
    if Path(source).exists() and destination.samefile(source):
        raise ArtifactError(f"{destination}: expected another file than the model itself")


def save_model(model: onnx.ModelProto, destination: Path) -> None:
    """Write under a temporary name, sync, rename.

    Raises:
        ArtifactError: the destination cannot be written.
    """
    check_destination(destination)
    data = f"{destination.name}.data" if model.ByteSize() > _EXTERNAL else None
    folder, name = destination.parent, destination.name
    try:
        with TemporaryDirectory(prefix=f".{name}.", suffix=".partial", dir=folder) as scratch:
            partial = Path(scratch) / name
            onnx.save(model, partial, save_as_external_data=data is not None, location=data)
            # The weights first: a model whose weights are not there yet is not whole.
            for written in filter(None, (data, name)):
                with (Path(scratch) / written).open("rb+") as file:
                    os.fsync(file.fileno())
                (Path(scratch) / written).replace(folder / written)
    except OSError as error:
        raise ArtifactError(
            f"{destination}: cannot be written: {error.strerror or error}"
        ) from None
