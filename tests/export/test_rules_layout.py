import itertools

import numpy as np
import pytest
from onnx import helper, numpy_helper

from jataug.errors import UnsupportedOperator
from jataug.export import differentiate

from .checking import case, check_gradient, ids, normal, on_onnx

X = (2, 3, 4, 5)


def ints(*values):
    return np.array(values, np.int64)


RESHAPES = [
    case("Reshape", X, ints(2, 60)),
    case("Reshape", X, ints(2, -1)),
    case("Reshape", X, ints(0, 12, -1)),
    case("Reshape", X, ints(-1, 5)),
    case("Reshape", X, ints(6, 4, 5)),
    case("Reshape", X, ints(-1)),
    case("Reshape", X, ints(2, 3, 4, 5), allowzero=1),
    *(case("Flatten", X, axis=axis) for axis in (0, 1, 2, 3, 4, -1)),
    case("Flatten", X),
]
SQUEEZES = [
    case("Squeeze", (2, 1, 3, 1), ints(1)),
    case("Squeeze", (2, 1, 3, 1), ints(-1, 1)),
    case("Squeeze", (2, 1, 3, 1)),
    case("Squeeze", (2, 1, 3, 1), opset=11, axes=[1, 3]),
    case("Unsqueeze", (2, 3), ints(0)),
    case("Unsqueeze", (2, 3), ints(-1, 1)),
    case("Unsqueeze", (2, 3), opset=11, axes=[2]),
]
TRANSPOSES = [
    *(case("Transpose", (2, 3, 4), perm=list(p)) for p in itertools.permutations(range(3))),
    case("Transpose", (2, 3, 4)),
    case("Transpose", X, perm=[0, 2, 3, 1]),
    case("Transpose", X, perm=[0, 3, 1, 2]),
]
CONCATS = [
    case("Concat", (2, 3, 4), axis=1),
    case("Concat", (2, 3, 4), (2, 2, 4), axis=1),
    case("Concat", (2, 3, 4), (2, 3, 1), (2, 3, 2), axis=-1, active=(1,)),
    case("Concat", (2, 3, 4), (2, 3, 1), (2, 3, 2), axis=-1, active=(0, 2)),
    case("Concat", (2, 3, 4), (2, 1, 4), (2, 3, 4), axis=-2, active=(0, 1, 2)),
    case("Concat", (2, 3), (4, 3), axis=0, active=(0, 1)),
]
PADS = [
    case("Pad", X, ints(0, 0, 1, 2, 0, 0, 3, 0)),
    case("Pad", X, ints(0, 1, 0, 0, 0, 2, 0, 0), np.array(0.7)),
    # onnx's own evaluator has no negative pads: ONNX Runtime is the oracle.
    case("Pad", X, ints(0, 0, -1, 0, 0, 0, 0, -2), linear=True),
    case("Pad", X, ints(0, 0, -1, 2, 0, 0, 1, -2), linear=True),
    case("Pad", X, ints(0, 0, -2, -1, 0, -1, -1, 1), linear=True),
    case("Pad", X, ints(0, 0, 0, 0, 0, 0, 0, 0)),
    case("Pad", X, ints(1, 2, 3, 0), None, ints(2, 3)),
    case("Pad", X, ints(1, -2, -3, 2), np.array(0.0), ints(-1, 2), linear=True),
    case("Pad", X, opset=9, pads=[0, 0, 1, 2, 0, 0, 3, 0], value=0.5, linear=True),
]
CASES = [*RESHAPES, *SQUEEZES, *TRANSPOSES, *CONCATS, *PADS]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    check_gradient(case)


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
def test_other_modes_of_pad_are_refused(mode):
    opset = 19 if mode == "wrap" else 18
    padded = case("Pad", X, ints(0, 0, 1, 1, 0, 0, 1, 1), mode=mode, opset=opset)
    with pytest.raises(UnsupportedOperator, match=mode):
        differentiate(padded.model(np.float64))


def test_concat_of_one_tensor_with_itself():
    model = case("Concat", (2, 3, 4), (2, 3, 4), axis=2).model(np.float64)
    model.graph.node[0].input[:] = ["x0", "x0"]
    seed = normal(2, 3, 8)
    feeds = {"x0": normal(2, 3, 4), "grad_y": seed}
    found = on_onnx(differentiate(model), feeds)[1]
    np.testing.assert_array_equal(found, seed[..., :4] + seed[..., 4:])


@pytest.mark.parametrize(
    ("node", "weight"),
    [
        (helper.make_node("Concat", ["x", "x"], ["y"], axis=0), None),
        (helper.make_node("Pad", ["x", "w"], ["y"]), ints(1, 0, 0, 0)),
    ],
    ids=["Concat", "Pad"],
)
def test_what_adds_images_to_a_symbolic_batch_is_refused(node, weight):
    weights = [] if weight is None else [numpy_helper.from_array(weight, "w")]
    x = helper.make_tensor_value_info("x", 1, ["batch", 3])
    y = helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph([node], "g", [x], [y], weights)
    opsets = [helper.make_opsetid("", 18)]
    with pytest.raises(UnsupportedOperator, match="batch"):
        differentiate(helper.make_model(graph, opset_imports=opsets, ir_version=8))
