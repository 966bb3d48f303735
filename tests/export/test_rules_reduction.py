import numpy as np
import pytest

from .checking import case, check_gradient, ids

X = (2, 3, 4, 5)


def axes(*values):
    return np.array(values, np.int64)


CASES = [
    case(op_type, X, chosen, keepdims=keepdims)
    for op_type in ("ReduceMean", "ReduceSum")
    for keepdims in (0, 1)
    for chosen in (axes(1), axes(2, 3), axes(-1), axes(-1, -2), axes(3, 1), axes(0, 1, 2, 3))
]
CASES += [
    case(op_type, X, *chosen, keepdims=keepdims, noop_with_empty_axes=noop)
    for op_type in ("ReduceMean", "ReduceSum")
    for keepdims in (0, 1)
    for noop in (0, 1)
    for chosen in ((), (axes(),))
]
CASES += [
    case("ReduceMean", X, opset=11, axes=[2, 3]),
    case("ReduceMean", X, opset=11, axes=[-1], keepdims=0),
    case("ReduceMean", X, opset=11),
    case("ReduceSum", X, opset=11, axes=[1], keepdims=0),
]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    check_gradient(case)
