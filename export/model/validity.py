"""Why a model that led to an unexpected error is not a valid one.

Asked only after the error: runtimes take much that the standard forbids.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx

from jataug.errors import JataugError, ModelError
from jataug.runtime.onnxruntime import Engine

__all__ = ["explain_invalid"]

_MOST = 2**28
"""Bytes of an input that is made to try a model."""


@contextmanager
def explain_invalid(model: onnx.ModelProto) -> Iterator[None]:
    """Raise ModelError in place of an error that an invalid model led to; any other passes."""
    try:
        yield
    except (JataugError, MemoryError):
        raise
    except Exception as error:
        reason = _problem(model)
        if reason is None:
            raise
        line = " ".join(reason.split())
        raise ModelError(f"the model is not valid: {line}; export it again") from error


def _problem(model: onnx.ModelProto) -> str | None:
    """Return what onnx's checker or, if it finds nothing, ONNX Runtime says of a model."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # whatever broken bytes lead the checker into
        return str(error)
    weights = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        tensor = value.type.tensor_type
        sizes = [dim.dim_value if dim.dim_value > 0 else 1 for dim in tensor.shape.dim]
        if value.name in weights:
            continue
        if float(np.prod(sizes, dtype=np.float64)) > _MOST:
            return None
        feeds[value.name] = np.zeros(sizes, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    try:
        Engine(model, {}, "cpu").run(feeds)
    except JataugError as error:
        return str(error)
    return None
