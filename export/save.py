"""Writes models atomically; above 1 GB the weights go to a second file."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from jataug.errors import ArtifactError

__all__ = ["check_destination", "save_model"]

_EXTERNAL = 1_000_000_000
"""Above this many bytes the weights go to "<name>.data" beside the model."""


def check_destination(destination: Path, source: object = None) -> None:
    """Check that a file can be written to `destination`, and that it is not the `source`.

    Raises:
        ArtifactError: `destination` is a folder, a device or the source, or its folder is missing.
    """
    if destination.is_dir():
        raise ArtifactError(f"{destination} is a folder; give the name of a file in it")
    if not destination.parent.is_dir():
        raise ArtifactError(
            f"{destination}: the folder {destination.parent} does not exist; create it first"
        )
    if destination.exists() and not destination.is_file():  # renaming would replace /dev/null
        raise ArtifactError(f"{destination} is a device or a pipe; give the name of a file")
    if not isinstance(source, (str, Path)) or not destination.exists():
        return
    if Path(source).exists() and destination.samefile(source):
        raise ArtifactError(f"{destination} is the model itself; choose another name")


def save_model(model: onnx.ModelProto, destination: Path) -> None:
    """Write a model under a temporary name, sync it, and rename it.

    A model of up to 1 GB is one file, which is replaced atomically. A larger one has its weights in
    "<name>.data". That file is replaced first and the model second, so an interruption between the
    two can leave an older model beside new weights.

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
            # The weights come first, so that a new model never lacks its weights.
            for part in filter(None, (data, name)):
                with (Path(scratch) / part).open("rb+") as file:
                    os.fsync(file.fileno())
                (Path(scratch) / part).replace(folder / part)
    except OSError as error:
        raise ArtifactError(
            f"{destination}: cannot be written: {error.strerror or error}"
        ) from None
