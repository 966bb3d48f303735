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
# onnx's own ConvTranspose refuses or misplaces some of these: ONNX Runtime is the oracle.
TRANSPOSED = [
    case("ConvTranspose", (2, 3, 4, 5), (3, 2, 3, 3), (2,), linear=True, **geometry)
    for geometry in (
        {},
        {"strides": [2, 2]},
        {"strides": [2, 3], "pads": [1, 0, 0, 2]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]},
        {"strides": [3, 4]},  # gaps between the kernels
        {"strides": [3, 3], "output_padding": [2, 1]},
        {"dilations": [2, 1]},
        {"dilations": [2, 2], "strides": [2, 1], "pads": [0, 3, 1, 1]},
        {"pads": [3, 0, 0, 4]},  # beyond the kernel: entries of X that nothing shows
        {"strides": [2, 2], "output_shape": [8, 9]},
        {"strides": [2, 2], "output_shape": [9, 12], "output_padding": [1, 1]},
        {"strides": [2, 2], "output_shape": [7, 8], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "output_shape": [6, 8], "auto_pad": "SAME_LOWER"},
        {"strides": [2, 2], "output_shape": [10, 12]},  # larger than what the kernels reach
        *({"strides": [2, 3], "auto_pad": p} for p in ("SAME_UPPER", "SAME_LOWER", "VALID")),
        *({"strides": [4, 1], "auto_pad": p} for p in ("SAME_UPPER", "SAME_LOWER")),
    )
] + [
    case("ConvTranspose", (2, 4, 5, 4), (4, 3, 3, 2), linear=True, group=2, strides=[2, 1]),
    case("ConvTranspose", (2, 4, 5, 4), (4, 1, 3, 3), linear=True, group=4, pads=[1, 1, 0, 1]),
    case("ConvTranspose", (2, 3, 6), (3, 2, 4), (2,), linear=True, strides=[2], pads=[1, 0]),
    case("ConvTranspose", (1, 2, 3, 2, 3), (2, 1, 2, 3, 2), linear=True, strides=[2, 1, 2]),
]
CASES = [*TWO_D, *ONE_BY_ONE, *GROUPS, *DEPTHWISE, *OTHER_RANKS, *TRANSPOSED]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    check_gradient(case)


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
def test_weights_that_depend_on_the_image_are_refused(op_type):
    computed = case(op_type, (2, 4, 6, 6), (4, 4, 3, 3), active=(0, 1))
    with pytest.raises(UnsupportedOperator, match=f"input 1 of {op_type}"):
        differentiate(computed.model(np.float64))


def test_a_transposed_convolution_of_disputed_size_is_refused():
    options = {"strides": [2, 2], "output_padding": [1, 1], "auto_pad": "SAME_UPPER"}
    disputed = case("ConvTranspose", (2, 3, 4, 4), (3, 2, 3, 3), **options)
    with pytest.raises(UnsupportedOperator, match="disagree"):
        differentiate(disputed.model(np.float64))


def test_flip_is_its_own_inverse():
    kernel = normal(6, 2, 3, 4)
    assert flip(flip(kernel, 3), 3).shape == kernel.shape
    np.testing.assert_array_equal(flip(flip(kernel, 3), 3), kernel)
    assert flip(kernel, 3).shape == (6, 2, 3, 4)
    assert flip(kernel, 1).shape == (2, 6, 3, 4)
