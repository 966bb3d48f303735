"""Calls on memory that another library owns. Experimental on CUDA.

Tensors are passed through DLPack, without a copy if they are on the engine's device.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..onnxruntime import Engine, load

__all__ = ["run_shared", "settle", "value_of"]


def run_shared(
    engine: Engine,
    feeds: Mapping[str, Any],
    results: Mapping[str, Any],
    kept: Sequence[str] = (),
    number: int = 0,
) -> list[Any]:
    """Run an engine once, and write the outputs named in `results` into the given tensors.

    Args:
        engine: the engine to run.
        feeds: input name -> contiguous DLPack tensor, or a value that an earlier call returned.
        results: output name -> contiguous DLPack tensor of the output's type and shape.
        kept: outputs that stay on the engine's device, in memory of the runtime.
        number: the number of that device.

    Returns:
        The values of `kept`, in order. A later call can read them as feeds.
    """
    binding = engine.bind(
        {name: value_of(feed) for name, feed in feeds.items()},
        {name: value_of(tensor) for name, tensor in results.items()},
    )
    for name in kept:
        binding.values.bind_output(name, engine.device, number)
    engine.run_bound(binding)
    values: list[Any] = binding.values.get_outputs()
    return values[len(results) :]


def settle(device: Any) -> None:
    """Wait for torch's pending work on a device (torch.device).

    The runtime uses its own stream, so without waiting it could read a tensor before torch has
    written it, or overwrite one before torch has read it. The runtime itself returns only when it
    is done.
    """
    if device.type == "cuda":
        import torch

        torch.cuda.current_stream(device).synchronize()


def value_of(tensor: Any) -> Any:
    """Return the runtime's value for a contiguous DLPack tensor, which shares its memory.

    A value of the runtime is returned unchanged.
    """
    kind = load().OrtValue
    if isinstance(tensor, kind):
        return tensor
    if hasattr(kind, "from_dlpack"):
        return kind.from_dlpack(tensor)
    # Before onnxruntime 1.26 only the wrapped class can do this. It confuses booleans with bytes,
    # and no tensor here is boolean.
    inner = load().capi.onnxruntime_pybind11_state.OrtValue
    return kind(inner.from_dlpack(tensor.__dlpack__()))
