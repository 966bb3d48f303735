"""OpenVINO: compiled models with their buffers, on the CPU, in float32."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jataug.errors import MissingExtra, RuntimeUnavailable

from .unsupported import check_age, refusal
from .values import shape_of, type_of

if TYPE_CHECKING:
    import onnx

__all__ = ["Engine", "HostBuffer", "check_device", "load", "version"]

Array = NDArray[Any]

_TELEMETRY = "openvino_telemetry"


def load() -> Any:
    """Return the openvino module, imported without its telemetry.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        with _without_telemetry():
            import openvino
    except ImportError:
        raise MissingExtra("OpenVINO is not installed: pip install 'jataug[openvino]'") from None
    return openvino


@contextmanager
def _without_telemetry() -> Iterator[None]:
    # Importing openvino reports to a server unless its telemetry package is missing.
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # what makes an import fail
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]


def version() -> str:
    """Return the runtime's version."""
    return f"openvino {load().__version__.partition('-')[0]}"


def check_device(device: str) -> None:
    """Check that OpenVINO is used on the CPU.

    Raises:
        RuntimeUnavailable: the device is not "auto" or "cpu".
    """
    if device not in ("auto", "cpu"):
        raise RuntimeUnavailable(
            f"device: expected auto or cpu with the backend openvino, got {device!r}"
        )


class HostBuffer:
    """Memory on the host that OpenVINO reads and writes in place.

    Args:
        array: that memory, contiguous.
    """

    def __init__(self, array: Array) -> None:
        self._array = array
        self.tensor = load().Tensor(array, shared_memory=True)

    def update_inplace(self, array: Array) -> None:
        """Copy an array of the same shape and type into it."""
        np.copyto(self._array, array, casting="no")

    def numpy(self) -> Array:
        """Return the memory itself."""
        return self._array


class Engine:
    """A model compiled for one batch size.

    Args:
        model: its symbolic sizes are named in `sizes`.
        sizes: what each symbolic size is.
        device: "auto" or "cpu", the only one.
        threads: threads of the runtime; None leaves the choice to it.

    Attributes:
        precision: the type in which convolutions and products are computed. OpenVINO's default is
            bfloat16 on processors that have it, which costs five digits.

    Raises:
        RuntimeUnavailable: the device is not the CPU, or the processor lacks the precision.
        ModelError: the runtime refuses the model.
    """

    precision = "f32"

    def __init__(
        self,
        model: "onnx.ModelProto",
        sizes: Mapping[str, int],
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        self._ov = load()
        check_device(device)
        check_age(version(), model)
        self.inputs = [value.name for value in model.graph.input]
        self.outputs = [value.name for value in model.graph.output]
        self._types = {v.name: type_of(v) for v in (*model.graph.input, *model.graph.output)}
        self._compiled = self._compile(model, sizes, threads)
        # OpenVINO drops inputs that nothing reads.
        self._read = {name for port in self._compiled.inputs for name in port.names}
        self.providers = [f"OpenVINO CPU {self.precision}"]
        self.device = "cpu"

    def _compile(
        self, model: "onnx.ModelProto", sizes: Mapping[str, int], threads: int | None
    ) -> Any:
        core, options = self._ov.Core(), self._options(threads)
        self._check_precision(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        try:
            read = core.read_model(model.SerializeToString())
            there = {name for port in read.inputs for name in port.names}
            shapes = {v.name: shape_of(v, sizes) for v in model.graph.input if v.name in there}
            read.reshape({name: self._ov.PartialShape(shape) for name, shape in shapes.items()})
            compiled = core.compile_model(read, "CPU", options)
        except RuntimeError as error:
            raise refusal(version(), model, error) from error
        # The precision is only a hint. OpenVINO uses another one if it lacks kernels for it.
        self._check_precision([compiled.get_property("INFERENCE_PRECISION_HINT").to_string()])
        return compiled

    def _options(self, threads: int | None) -> dict[str, Any]:
        options = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        return options if threads is None else {**options, "INFERENCE_NUM_THREADS": threads}

    def _check_precision(self, there: Iterable[str]) -> None:
        known = (name.lower().replace("fp", "f") for name in there)
        names = [name for name in known if name in ("f32", "f16", "bf16")]
        if self.precision not in names:
            raise RuntimeUnavailable(
                f"precision: expected {self.precision}, but OpenVINO on this processor computes in "
                f"{', '.join(names)}"
            )

    def empty(self, name: str, shape: Iterable[int]) -> HostBuffer:
        """Return a buffer for the input or output `name`."""
        return HostBuffer(np.zeros(tuple(shape), self._types[name]))

    def bind(self, inputs: Mapping[str, HostBuffer], outputs: Mapping[str, HostBuffer]) -> Any:
        """Return a binding of buffers to inputs and outputs; `run_bound` runs it without a copy."""
        request = self._compiled.create_infer_request()
        for name, buffer in inputs.items():
            if name in self._read:
                request.set_tensor(name, buffer.tensor)
        for name, buffer in outputs.items():
            request.set_tensor(name, buffer.tensor)
        return request

    def run_bound(self, binding: Any) -> None:
        """Run one binding."""
        binding.infer()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return all outputs for numpy inputs; inputs that the model lacks are ignored."""
        request = self._compiled.create_infer_request()
        request.infer({name: np.ascontiguousarray(feeds[name]) for name in sorted(self._read)})
        return {name: request.get_tensor(name).data.copy() for name in self.outputs}
