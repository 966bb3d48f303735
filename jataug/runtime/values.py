"""Types and shapes of a model's inputs and outputs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

__all__ = ["shape_of", "type_of"]


def type_of(value: "onnx.ValueInfoProto") -> np.dtype[Any]:
    """Return the numpy type of an input or output."""
    import onnx

    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def shape_of(value: "onnx.ValueInfoProto", sizes: Mapping[str, int]) -> list[int]:
    """Return the shape of an input or output, with -1 for symbolic sizes that `sizes` lacks."""
    dims = value.type.tensor_type.shape.dim
    return [sizes.get(d.dim_param, -1) if d.dim_param else d.dim_value for d in dims]
