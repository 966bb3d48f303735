"""ONNX Runtime, the reference backend: compiled models with their buffers, on CPU or CUDA."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jataug.errors import MissingExtra, RuntimeUnavailable

from .unsupported import failure, refusal

if TYPE_CHECKING:
    import onnx

__all__ = ["Binding", "Engine", "check_device", "check_tf32", "load", "version"]

Array = NDArray[Any]

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_NO_GRAPH = -1
"""The graph id of a run that is neither recorded nor replayed, as its addresses are always new."""


def load() -> Any:
    """Return the onnxruntime module.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra(
            "ONNX Runtime is not installed: pip install 'jataug[cpu]', or 'jataug[gpu]' for CUDA"
        ) from None
    return onnxruntime


def version() -> str:
    """Return the runtime's version."""
    return f"onnxruntime {load().__version__}"


class Engine:
    """A model compiled for one batch size.

    Args:
        model: its symbolic sizes are named in `sizes`.
        sizes: the value of each symbolic size.
        device: "auto", "cpu", "cuda" or "cuda:<i>".
        threads: threads of the runtime; None leaves the choice to it.
        capture: record the first run of each binding as a CUDA graph, and replay it afterwards. A
            binding then keeps its buffers for good. No buffer may be both read and written, because
            the runtime runs a graph more than once to record it.
        tf32: let CUDA round float32 products to TF32, which costs about three digits.

    Raises:
        RuntimeUnavailable: the requested device's provider did not load; or capture was requested
            and a node does not run on the device.
        ModelError: the runtime refuses the model.
    """

    def __init__(
        self,
        model: "onnx.ModelProto",
        sizes: Mapping[str, int],
        device: str = "auto",
        threads: int | None = None,
        capture: bool = False,
        tf32: bool = False,
    ) -> None:
        self._ort = load()
        self._capture, self._graphs, self._tf32 = capture, count(1), tf32
        self._session = self._open(model, sizes, device, threads)
        self.providers: list[str] = self._session.get_providers()
        self.device = "cuda" if _CUDA in self.providers else "cpu"
        self._device_id = _device_id(device)
        self._types = {
            v.name: _NUMPY[v.type]
            for v in (*self._session.get_inputs(), *self._session.get_outputs())
        }
        self.inputs = [v.name for v in self._session.get_inputs()]
        self.outputs = [v.name for v in self._session.get_outputs()]

    def _open(
        self,
        model: "onnx.ModelProto",
        sizes: Mapping[str, int],
        device: str,
        threads: int | None,
    ) -> Any:
        if self._tf32:
            check_tf32(device)
        options = self._ort.SessionOptions()
        options.log_severity_level = 4
        # A gradient keeps many values and frees them in any order. A memory pattern would need
        # twice the memory of the arena, and would save no time (benchmarks/README.md).
        options.enable_mem_pattern = False
        for name, size in sizes.items():
            options.add_free_dimension_override_by_name(name, size)
        if threads is not None:
            options.intra_op_num_threads = threads
        providers = _providers(self._ort, device, self._capture, self._tf32)
        content = model.SerializeToString()
        try:
            session = self._ort.InferenceSession(content, options, providers=providers)
        except Exception as error:
            if self._capture:
                raise _uncaptured(device, error) from error
            if device != "auto" or self._tf32 or len(providers) == 1:
                raise refusal("onnxruntime", model, error) from error
            try:
                session = self._ort.InferenceSession(content, options, providers=[_CPU])
            except Exception as second:
                raise refusal("onnxruntime", model, second) from second
        wanted = [p if isinstance(p, str) else p[0] for p in providers]
        if _CUDA in wanted and _CUDA not in session.get_providers():
            if device != "auto" or self._tf32 or self._capture:
                raise RuntimeUnavailable(
                    f"device {device!r}: CUDA did not load (driver, CUDA or cuDNN missing?); use "
                    f"--device cpu{' without tf32' if self._tf32 else ''}"
                )
            warnings.warn("CUDA did not load; running on the CPU", RuntimeWarning, stacklevel=4)
        return session

    def empty(self, name: str, shape: Iterable[int]) -> Any:
        """Return a buffer on the device for the input or output `name`."""
        return self._ort.OrtValue.ortvalue_from_shape_and_type(
            list(shape), self._types[name], self.device, self._device_id
        )

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """Return a binding of buffers to inputs and outputs; `run_bound` runs it without a copy."""
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        return Binding(binding, self._options(next(self._graphs)))

    def run_bound(self, binding: "Binding") -> None:
        """Run one binding."""
        with _failures():
            self._session.run_with_iobinding(binding.values, binding.options)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return all outputs for numpy inputs; inputs that the model lacks are ignored."""
        known = {name: np.ascontiguousarray(feeds[name]) for name in self.inputs}
        with _failures():
            found = self._session.run(None, known, self._options(_NO_GRAPH))
        return dict(zip(self.outputs, found, strict=True))

    def _options(self, graph: int) -> Any:
        """Return the run options that select a CUDA graph; None if nothing is recorded."""
        if not self._capture:
            return None
        options = self._ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph))
        return options


@contextmanager
def _failures() -> Iterator[None]:
    """Raise ModelError with the text of the runtime's own errors, such as missing memory."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise failure("onnxruntime", error) from error


@dataclass(frozen=True)
class Binding:
    """Buffers for inputs and outputs, and the id of the CUDA graph of their runs."""

    values: Any
    options: Any


_NUMPY: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(uint16)": np.uint16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


def check_device(device: str) -> None:
    """Check that a device has a provider here. The provider may still fail to load.

    Raises:
        RuntimeUnavailable: the device is unknown, or has no provider.
        MissingExtra: the runtime is not installed.
    """
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
        raise RuntimeUnavailable(f"device: expected auto, cpu, cuda or cuda:<i>, got {device!r}")
    if kind == "cuda" and _CUDA not in load().get_available_providers():
        raise RuntimeUnavailable(
            f"device {device!r}: this onnxruntime has no CUDA provider; pip install "
            "'jataug[gpu]' in place of [cpu]"
        )


def check_tf32(device: str) -> None:
    """Check that the device can be CUDA, the only one with TF32.

    Raises:
        RuntimeUnavailable: the device is the CPU, or this onnxruntime has no CUDA provider.
    """
    if device.startswith("cpu") or _CUDA not in load().get_available_providers():
        raise RuntimeUnavailable(
            f"tf32 needs CUDA, and the device is {device!r} here; leave tf32 out, or use --device "
            "cuda with 'jataug[gpu]'"
        )


def _device_id(device: str) -> int:
    return int(device.partition(":")[2] or 0) if device.startswith("cuda") else 0


def _uncaptured(device: str, error: Exception) -> RuntimeUnavailable:
    reason = str(error).strip().splitlines()[0]
    return RuntimeUnavailable(
        f"cuda_graph: the attack cannot be recorded on device {device!r} ({reason}); open it "
        "without cuda_graph"
    )


def _providers(ort: Any, device: str, capture: bool = False, tf32: bool = False) -> list[Any]:
    check_device(device)
    if device.startswith("cpu") or _CUDA not in ort.get_available_providers():
        if capture:
            raise RuntimeUnavailable(
                f"cuda_graph needs a CUDA device, and the device is {device!r}"
                + ("" if device.startswith("cpu") else " with an onnxruntime without CUDA")
                + "; leave cuda_graph out"
            )
        return [_CPU]
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    # ONNX Runtime turns TF32 on by default, which costs about three digits.
    options = {
        "device_id": _device_id(device),
        "use_tf32": int(tf32),
        "enable_cuda_graph": int(capture),
    }
    return [(_CUDA, options), _CPU]
