import itertools

import numpy as np
import pytest

from jataug.errors import UnsupportedOperator
from jataug.export import differentiate
from jataug.export.rules.convolution import flip

from .checking import case, check_gradient, ids, normal

GEOMETRIES = [
    {},
    {"pads": [1, 1, 1, 1]},
    {"pads": [0, 2, 1, 0]},
    {"pads": [3, 2, 4, 3]},  # beyond k - 1: windows that see no pixel at all
    {"strides": [2, 2]},
    {"strides": [2, 3], "pads": [1, 0, 2, 1]},
    {"strides": [3, 2]},  # the last window ends inside the input
    {"strides": [4, 5]},  # whole rows and columns between the windows
    {"strides": [4, 4], "pads": [1, 1, 0, 0]},
    {"dilations": [2, 1]},
    {"dilations": [2, 2], "pads": [2, 1, 0, 3]},
    {"dilations": [1, 2], "strides": [2, 2], "pads": [1, 2, 2, 1]},
    {"dilations": [2, 3], "strides": [3, 2], "pads": [2, 3, 2, 3]},
    *({"auto_pad": p} for p in ("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET")),
    *({"auto_pad": p, "strides": [2, 3]} for p in ("SAME_UPPER", "SAME_LOWER", "VALID")),
]
SIZES = [(7, 8), (8, 9)]
TWO_D = [
    case("Conv", (2, 3, *size), (4, 3, 3, 2), **geometry)
    for size, geometry in itertools.product(SIZES, GEOMETRIES)
]
ONE_BY_ONE = [
    case("Conv", (2, 3, 5, 6), (4, 3, 1, 1), (4,), **geometry)
    for geometry in ({}, {"strides": [2, 2]}, {"strides": [3, 4]}, {"pads": [1, 0, 0, 2]})
]
# onnx's own ConvTranspose gets groups wrong: linear=True takes ONNX Runtime for the oracle.
GROUPS = [
    case("Conv", (2, 4, 6, 7), (6, 4 // group, 3, 3), (6,), linear=True, group=group, **geometry)
    for group in (1, 2)
    for geometry in ({"pads": [1, 1, 1, 1]}, {"strides": [2, 2]}, {"dilations": [2, 2]})
]
DEPTHWISE = [
    case("Conv", (2, 4, 6, 7), (size, 1, 3, 3), linear=True, group=4, pads=[1] * 4, **geometry)
    for size in (4, 8)
    for geometry in ({}, {"strides": [2, 2]}, {"strides": [2, 1], "dilations": [1, 2]})
]
OTHER_RANKS = [
    case("Conv", (2, 3, 9), (4, 3, 4)),
    case("Conv", (2, 3, 9), (4, 3, 4), pads=[0, 3], strides=[2]),
    case("Conv", (2, 4, 9), (4, 1, 3), group=4, dilations=[2]),
    case("Conv", (1, 2, 4, 5, 4), (3, 2, 2, 3, 2)),
    case("Conv", (1, 2, 4, 5, 4), (3, 2, 2, 3, 2), strides=[2, 1, 3], pads=[1, 0, 1, 0, 1, 0]),
]
CASES = [*TWO_D, *ONE_BY_ONE, *GROUPS, *DEPTHWISE, *OTHER_RANKS]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    check_gradient(case)


def test_weights_that_depend_on_the_image_are_refused():
    computed = case("Conv", (2, 4, 6, 6), (6, 4, 3, 3), active=(0, 1))
    with pytest.raises(UnsupportedOperator, match=r"input 1 of Conv"):
        differentiate(computed.model(np.float64))


def test_flip_is_its_own_inverse():
    kernel = normal(6, 2, 3, 4)
    assert flip(flip(kernel, 3), 3).shape == kernel.shape
    np.testing.assert_array_equal(flip(flip(kernel, 3), 3), kernel)
    assert flip(kernel, 3).shape == (6, 2, 3, 4)
    assert flip(kernel, 1).shape == (2, 6, 3, 4)
