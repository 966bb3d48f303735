"""Opens the models of an evaluation, each with its name and origin."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...artifact import KEY
from ...data import Geometry, Skip, Source
from ...data.skip import OnError
from ...errors import DataError, ModelError, RuntimeUnavailable
from ...preprocessing import Preprocessing
from .model import Model

__all__ = ["NamedModel", "default_batch_size", "open_models"]


@dataclass(frozen=True, eq=False)
class NamedModel:
    """A model with its name and origin; see ModelReport for the fields.

    The sha256 covers a whole ONNX model. For a torch module it covers the weights, not the code.
    """

    name: str
    model: Model
    path: str | None
    sha256: str | None
    preprocessing: Preprocessing | None

    @property
    def is_onnx(self) -> bool:
        """Whether its sha256 covers everything that decides its logits."""
        return self.preprocessing is not None

    def planned(self) -> dict[str, Any]:
        """Return the model's entry in an evaluation's plan."""
        wanted = None if self.preprocessing is None else self.preprocessing.to_dict()
        return {"name": self.name, "sha256": self.sha256, "preprocessing": wanted}


def default_batch_size(shape: tuple[int, int, int]) -> int:
    """Return the default rows per call: 128 small images, or fewer large ones."""
    return min(128, max(8, 2_400_000 // int(np.prod(shape))))


def open_models(
    models: Sequence[Any],
    source: Source,
    geometry: Geometry,
    *,
    preprocessing: Preprocessing | None,
    size: tuple[int, int] | None,
    device: str,
    batch_size: int | None,
    threads: int | None = None,
    tf32: bool = False,
    on_error: OnError = "stop",
    names: Sequence[str] | None = None,
) -> list[NamedModel]:
    """Open models and return them.

    Args:
        models: .onnx files, ModelProtos, torch modules, or objects that implement Model.
        source: its first image gives the image shape of torch modules.
        geometry: the resizing and cropping of that image.
        preprocessing: the preprocessing of ONNX models; a torch module takes images in [0, 1].
        size: (height, width) for models that leave them open.
        device: for ONNX models.
        batch_size: the largest batch.
        threads: threads of the runtime, for ONNX models.
        tf32: allow TF32 on CUDA, for ONNX models.
        on_error: whether an unusable first image is an error or is skipped.
        names: one per model. Default: the stem of its file, or its class.

    Raises:
        ModelError: a model cannot be used.
        DataError: `names` does not have one name per model.
        RuntimeUnavailable: TF32 was requested, and a model is not an ONNX model on CUDA.
    """
    if names is not None and len(names) != len(models):
        raise DataError(f"names: expected {len(models)}, one per model, got {len(names)}")
    if tf32:
        from jataug.runtime.onnxruntime import check_tf32

        check_tf32(device)
    taken: set[str] = set()
    found = []
    for number, model in enumerate(models):
        name = _unique(names[number] if names else _name(model), taken)
        if tf32 and not _is_file(model):
            raise RuntimeUnavailable(
                f"{name}: tf32: expected an ONNX model, got {type(model).__name__}, which has its "
                "own setting (torch: torch.backends.cuda.matmul.allow_tf32)"
            )
        if _is_model(model):
            found.append(NamedModel(name, model, None, None, None))
        elif _is_file(model):
            options = {"device": device, "size": size, "threads": threads, "tf32": tf32}
            found.append(_onnx(name, model, preprocessing, batch_size=batch_size or 64, **options))
        else:
            found.append(_torch(name, model, _first(source, geometry, on_error), preprocessing))
    return found


def _is_model(model: Any) -> bool:
    return callable(getattr(model, "logits", None)) and callable(getattr(model, "gradient", None))


def _is_file(model: Any) -> bool:
    return isinstance(model, (str, os.PathLike)) or hasattr(model, "SerializeToString")


def _name(model: Any) -> str:
    return Path(model).stem if isinstance(model, (str, os.PathLike)) else type(model).__name__


def _unique(name: str, taken: set[str]) -> str:
    found, number = name, 2
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    taken.add(found)
    return found


def _onnx(name: str, model: Any, preprocessing: Preprocessing | None, **options: Any) -> NamedModel:
    from jataug.export.model.load import load_model, model_digest

    from .onnx import OnnxModel

    path = Path(model) if isinstance(model, (str, os.PathLike)) else None
    proto = load_model(model if path is None else path)
    if any(entry.key == KEY for entry in proto.metadata_props):
        raise ModelError(
            f"{path or name}: expected a classifier, got an attack artifact; give the model that "
            "it was exported from"
        )
    opened = OnnxModel(proto, preprocessing, **options)
    place, digest = None if path is None else str(path), model_digest(proto)
    return NamedModel(name, opened, place, digest, opened.preprocessing)


def _first(source: Source, geometry: Geometry, on_error: OnError) -> tuple[int, ...]:
    """Return the shape of the first image that can be used: (height, width, channel)."""
    for index in range(len(source)):
        try:
            return geometry.apply(source.read(index), source.where(index)).shape
        except DataError as error:
            Skip.of(source, index, error, on_error)
    raise DataError("source: expected at least one image that can be used, got none")


def _torch(
    name: str, module: Any, shape: tuple[int, ...], preprocessing: Preprocessing | None
) -> NamedModel:
    if not callable(getattr(module, "modules", None)):
        raise ModelError(
            "model: expected an .onnx path, a ModelProto or a torch module, got "
            f"{type(module).__name__}"
        )
    if preprocessing is not None and preprocessing != Preprocessing():
        raise ModelError(
            "preprocessing does not apply to a torch module; make it a part of the module"
        )
    from .torch import TorchModel

    height, width, channel = shape
    opened = TorchModel(module, (channel, height, width))
    return NamedModel(name, cast("Model", opened), None, opened.sha256, None)
