"""The runtimes that may be here, one candidate for each of their providers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jataug.errors import JataugError, MissingExtra, RuntimeUnavailable
from jataug.runtime import onnxruntime, openvino, tract
from jataug.runtime.unsupported import refusal

if TYPE_CHECKING:
    import onnx

__all__ = ["Candidate", "Compiled", "candidates", "golden"]

Compiled = Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]
"""Inputs by name -> outputs by name."""

_CPU = "CPUExecutionProvider"
_REMOTE = ("AzureExecutionProvider",)
"""Listed in every build; they call a server."""

_LARGEST_REFERENCE = 64 * 64, 4_000_000
"""Pixels and bytes of the file; the reference evaluator takes minutes for more."""


@dataclass(frozen=True)
class Candidate:
    """A runtime with a provider.

    Attributes:
        name: of the runtime, as in "onnxruntime".
        provider: what computes, as the runtime calls it.
        version: of the runtime; raises MissingExtra where it is not installed.
        compile: (model, sizes, threads) -> what runs it; raises RuntimeUnavailable where the
            provider does not load, ModelError where the model is refused.
    """

    name: str
    provider: str
    version: Callable[[], str]
    compile: Callable[["onnx.ModelProto", Mapping[str, int], int | None], Compiled]


def candidates(model: "onnx.ModelProto") -> list[Candidate]:
    """Return every runtime that a model may be checked on, installed or not."""
    found = [_onnxruntime(provider) for provider in _providers()]
    found.append(Candidate("openvino", "CPU f32", openvino.version, _openvino))
    found.append(Candidate("tract", "CPU", tract.version, _tract))
    pixels, size = _LARGEST_REFERENCE
    if _pixels(model) <= pixels and model.ByteSize() <= size:
        found.append(Candidate("onnx", "reference evaluator", _onnx_version, _reference))
    return found


def golden(model: "onnx.ModelProto", sizes: Mapping[str, int]) -> tuple[str, Compiled]:
    """Return what the others are compared with, and its name: ONNX Runtime on one thread of the
    CPU, every node by itself; the reference evaluator where that is not installed.
    """
    try:
        name = onnxruntime.version()
    except MissingExtra:
        return f"{_onnx_version()} reference evaluator", _reference(model, sizes, 1)
    ort = onnxruntime.load()
    level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return f"{name} {_CPU} without optimisations", _session(model, sizes, 1, [_CPU], level)


def _providers() -> list[str]:
    try:
        listed = onnxruntime.load().get_available_providers()
    except MissingExtra:
        return [_CPU]
    # The CPU first; ONNX Runtime lists it last.
    return sorted((p for p in listed if p not in _REMOTE), key=lambda p: p != _CPU)


def _onnxruntime(provider: str) -> Candidate:
    def compiled(
        model: "onnx.ModelProto", sizes: Mapping[str, int], threads: int | None
    ) -> Compiled:
        if provider != _CPU:
            _check_loads(provider)
        device = {_CPU: "cpu", "CUDAExecutionProvider": "cuda"}.get(provider)
        if device is not None:  # as a session runs it
            return onnxruntime.Engine(model, sizes, device, threads).run
        return _session(model, sizes, threads, [provider, _CPU])

    return Candidate("onnxruntime", provider, onnxruntime.version, compiled)


def _check_loads(provider: str) -> None:
    """Raise RuntimeUnavailable where a provider does not come up with a model of one node."""
    from onnx import parser

    text = '<ir_version: 8, opset_import: ["" : 18]> g (float[1] x) => (float[1] y) {y = Relu(x)}'
    ort, reason = onnxruntime.load(), ""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    content = parser.parse_model(text).SerializeToString()
    try:
        loaded = ort.InferenceSession(content, options, providers=[provider, _CPU]).get_providers()
    except Exception as error:  # whatever type it is
        loaded, reason = [], ": " + " ".join(str(error).split())[:200]
    if provider not in loaded:
        raise RuntimeUnavailable(f"{provider} is listed and did not load{reason}")


def _session(
    model: "onnx.ModelProto",
    sizes: Mapping[str, int],
    threads: int | None,
    providers: list[str],
    level: Any = None,
) -> Compiled:
    ort = onnxruntime.load()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    if level is not None:
        options.graph_optimization_level = level
    for name, size in sizes.items():
        options.add_free_dimension_override_by_name(name, size)
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    except Exception as error:
        raise refusal(onnxruntime.version(), model, error) from error
    names = [value.name for value in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _openvino(model: "onnx.ModelProto", sizes: Mapping[str, int], threads: int | None) -> Compiled:
    return openvino.Engine(model, sizes, "cpu", threads).run


def _tract(model: "onnx.ModelProto", sizes: Mapping[str, int], threads: int | None) -> Compiled:
    return tract.Engine(model, sizes, "cpu", threads).run


def _reference(model: "onnx.ModelProto", sizes: Mapping[str, int], threads: int | None) -> Compiled:
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(model)
    except Exception as error:
        raise refusal("the onnx reference evaluator", model, error) from error

    def run(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with np.errstate(all="ignore"):
            values = evaluator.run(None, dict(feeds))
        return dict(zip(evaluator.output_names, map(np.asarray, values), strict=True))

    return run


def _onnx_version() -> str:
    import onnx

    return f"onnx {onnx.__version__}"


def _pixels(model: "onnx.ModelProto") -> int:
    image = next(value for value in model.graph.input if value.name == "image")
    return int(np.prod([dim.dim_value for dim in image.type.tensor_type.shape.dim[2:]]))


def installed(candidate: Candidate) -> str | None:
    """Return a candidate's version, or None where it is not installed."""
    try:
        return candidate.version().partition(" ")[2]
    except JataugError:
        return None
