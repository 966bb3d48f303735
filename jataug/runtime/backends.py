"""The runtimes that a session can use. Each is a module with the same Engine."""

from collections.abc import Iterable, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from jataug.errors import RuntimeUnavailable

if TYPE_CHECKING:
    import onnx

__all__ = [
    "BACKENDS",
    "Buffer",
    "Engine",
    "EngineType",
    "check_device",
    "check_recordable",
    "engine_type",
]

BACKENDS = ("onnxruntime", "openvino")

Array = NDArray[Any]


class Buffer(Protocol):
    """Memory of an input or output, on the device where the runtime reads or writes it."""

    def update_inplace(self, array: Array) -> None:
        """Copy a contiguous array of the buffer's shape and type into it."""

    def numpy(self) -> Array:
        """Return the current contents. The next run may overwrite them, so copy what you keep."""


class Engine(Protocol):
    """A model compiled for one batch size.

    Attributes:
        providers: the execution providers that really loaded.
        device: "cpu" or "cuda".
        inputs: the names of the model's inputs.
        outputs: the names of its outputs.
    """

    providers: list[str]
    device: str
    inputs: list[str]
    outputs: list[str]

    def empty(self, name: str, shape: Iterable[int]) -> Buffer:
        """Return a buffer for the input or output `name`."""

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """Return a binding of buffers to inputs and outputs."""

    def run_bound(self, binding: Any) -> None:
        """Run one binding, without copying its buffers."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return all outputs for numpy inputs. Feeds that the model lacks are ignored."""


class EngineType(Protocol):
    """Compiles a model whose symbolic sizes are named in `sizes`."""

    def __call__(
        self,
        model: "onnx.ModelProto",
        sizes: Mapping[str, int],
        device: str = "auto",
        threads: int | None = None,
        **options: bool,
    ) -> Engine: ...


def engine_type(backend: str, tf32: bool = False) -> EngineType:
    """Return the function that compiles models for a backend. With tf32, products are in TF32.

    Raises:
        RuntimeUnavailable: there is no such backend.
    """
    engine = _module(backend).Engine
    found: EngineType = partial(engine, tf32=True) if tf32 else engine
    return found


def check_device(backend: str, device: str, tf32: bool = False) -> None:
    """Check that a backend can load a device here, and TF32 if that is asked for.

    Raises:
        RuntimeUnavailable: the backend or device is unknown, or has no provider here.
    """
    module = _module(backend)
    module.check_device(device)
    if tf32 and backend != "onnxruntime":
        raise RuntimeUnavailable(
            f"tf32 needs the backend onnxruntime on CUDA, and the backend is {backend}; leave "
            "tf32 out"
        )
    if tf32:
        module.check_tf32(device)


def check_recordable(backend: str, device: str, form: str) -> None:
    """Check that an artifact can be recorded as a CUDA graph.

    Raises:
        RuntimeUnavailable: the backend is not ONNX Runtime, the device is the CPU, or the form is
            loop.
    """
    if backend != "onnxruntime" or device == "cpu":
        raise RuntimeUnavailable(
            "cuda_graph needs the backend onnxruntime and a CUDA device, and this session has "
            f"{backend!r} on {device!r}; leave cuda_graph out"
        )
    if form == "loop":
        raise RuntimeUnavailable(
            "cuda_graph: an artifact of the form loop cannot be recorded as a CUDA graph; export "
            "it with --form step"
        )


def _module(backend: str) -> Any:
    if backend not in BACKENDS:
        raise RuntimeUnavailable(f"backend: expected {' or '.join(BACKENDS)}, got {backend!r}")
    return import_module(f".{backend}", __package__)
