"""The runtimes that a session can drive: sister modules, each with the same Engine."""

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
    """Memory of an input or output, where the runtime reads or writes it."""

    def update_inplace(self, array: Array) -> None:
        """Copy a contiguous array of the buffer's shape and type in."""

    def numpy(self) -> Array:
        """Return what is in it now; copy what has to outlive the next run."""


class Engine(Protocol):
    """A model compiled for one batch size.

    Attributes:
        providers: what really runs it.
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
        """Run one binding, without a copy."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return all outputs for numpy inputs; inputs that the model lacks are ignored."""


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
    """Return what compiles models for a backend; with tf32, to products in TF32.

    Raises:
        RuntimeUnavailable: there is no such backend.
    """
    engine = _module(backend).Engine
    found: EngineType = partial(engine, tf32=True) if tf32 else engine
    return found


def check_device(backend: str, device: str, tf32: bool = False) -> None:
    """Refuse a device that a backend cannot load here, and TF32 where it cannot be.

    Raises:
        RuntimeUnavailable: there is no such backend or device, or no provider for it.
    """
    module = _module(backend)
    module.check_device(device)
    if tf32 and backend != "onnxruntime":
        raise RuntimeUnavailable(
            f"tf32: expected the backend onnxruntime on CUDA, got the backend {backend}; leave "
            "tf32 out"
        )
    if tf32:
        module.check_tf32(device)


def check_recordable(backend: str, device: str, form: str) -> None:
    """Refuse what no CUDA graph can be recorded of.

    Raises:
        RuntimeUnavailable: another backend than ONNX Runtime, the CPU, or a Loop.
    """
    if backend != "onnxruntime" or device == "cpu":
        raise RuntimeUnavailable(
            "cuda_graph: expected the backend onnxruntime and a CUDA device, got "
            f"{backend!r} on {device!r}; leave cuda_graph out"
        )
    if form == "loop":
        raise RuntimeUnavailable(
            "cuda_graph: expected an artifact of the form step or unrolled, got loop, which no "
            "CUDA graph holds; export it with --form step"
        )


def _module(backend: str) -> Any:
    if backend not in BACKENDS:
        raise RuntimeUnavailable(f"backend: expected {' or '.join(BACKENDS)}, got {backend!r}")
    return import_module(f".{backend}", __package__)
