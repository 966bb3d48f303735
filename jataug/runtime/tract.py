"""tract: compiled models for self-checks and comparisons. Sessions do not use it."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jataug.errors import MissingExtra, RuntimeUnavailable

from .unsupported import check_age, refusal
from .values import shape_of, type_of

if TYPE_CHECKING:
    import onnx

__all__ = ["Engine", "load", "version"]

Array = NDArray[Any]

_TYPES = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "bool": "bool"}


def load() -> Any:
    """Return the tract module.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import tract
    except ImportError:
        raise MissingExtra("tract is not installed: pip install tract") from None
    return tract


def version() -> str:
    """Return the runtime's version."""
    return f"tract {load().version()}"


class Engine:
    """A model compiled for one batch size; it has no buffers to bind.

    Args:
        model: its symbolic sizes are named in `sizes`.
        sizes: what each symbolic size is.
        device: "auto" or "cpu", the only one.
        threads: ignored; tract computes in the calling thread.

    Raises:
        RuntimeUnavailable: another device.
        ModelError: the runtime refuses the model.
    """

    def __init__(
        self,
        model: "onnx.ModelProto",
        sizes: Mapping[str, int],
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        tract = load()
        if device not in ("auto", "cpu"):
            raise RuntimeUnavailable(f"device: expected auto or cpu with tract, got {device!r}")
        check_age(version(), model)
        self.inputs = [value.name for value in model.graph.input]
        # tract names outputs after nodes, but keeps the order of the file.
        self.outputs = [value.name for value in model.graph.output]
        try:
            self._runnable = _compiled(tract, model, sizes)
        except tract.TractError as error:
            said = str(error).partition("Stack backtrace")[0]
            raise refusal(version(), model, RuntimeError(said)) from error
        self.providers = ["tract CPU"]
        self.device = "cpu"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return all outputs for numpy inputs; inputs that the model lacks are ignored."""
        values = self._runnable.run([np.ascontiguousarray(feeds[name]) for name in self.inputs])
        arrays = (np.array(value.to_numpy()) for value in values)
        return dict(zip(self.outputs, arrays, strict=True))


def _compiled(tract: Any, model: "onnx.ModelProto", sizes: Mapping[str, int]) -> Any:
    # tract can only read files.
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        read = tract.onnx().load(path)
    known = {value.name: value for value in model.graph.input}
    for at in range(read.input_count()):
        value = known[read.input_name(at)]
        words = [*map(str, shape_of(value, sizes)), _TYPES[type_of(value).name]]
        read.set_input_fact(at, ",".join(words))
    read.analyse()
    return read.into_model().into_runnable()
