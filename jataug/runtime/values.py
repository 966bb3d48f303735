"""What a model says of its inputs and outputs."""

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
    """Return its shape, given its symbolic sizes; -1 for one that is not given."""
    dims = value.type.tensor_type.shape.dim
    return [sizes.get(d.dim_param, -1) if d.dim_param else d.dim_value for d in dims]
