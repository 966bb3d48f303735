import itertools

import numpy as np
import pytest
from onnx import helper, numpy_helper

from jataug.errors import UnsupportedOperator
from jataug.export import differentiate

from .checking import case, check_gradient, ids, normal, on_onnx
from .graphs import check_graph, graph

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
COPYING_PADS = [
    *(
        case("Pad", X, ints(0, 0, *before, 0, 0, *after), mode=mode, opset=19, linear=True)
        for mode in ("edge", "reflect", "wrap")
        for before, after in (((1, 2), (3, 0)), ((3, 3), (3, 4)), ((0, 0), (0, 1)))
    ),
    # onnx's own evaluator has no negative pads.
    case("Pad", X, ints(0, 0, -1, 2, 0, 0, 2, -2), mode="edge", linear=True),
    case("Pad", X, ints(12, 1), None, ints(-1), mode="edge"),
    case("Pad", X, ints(1, 2, 0, 3), None, ints(1, -1), mode="reflect"),
    case("Pad", X, ints(0, 1, 0, 1), None, ints(0, 1), mode="wrap", opset=19),
    case("Pad", (5,), ints(2, 3), mode="reflect"),
]
SLICES = [
    case("Slice", X, ints(1), ints(3)),
    case("Slice", X, ints(1, 0), ints(3, 4), ints(2, -1)),
    case("Slice", X, ints(0), ints(2**63 - 1), ints(3)),
    case("Slice", X, ints(0), ints(1000), ints(3)),
    case("Slice", X, ints(-3), ints(-1), ints(3)),
    case("Slice", X, ints(1, 0), ints(4, 5), ints(2, 3), ints(2, 3)),
    case("Slice", X, ints(-1), ints(-(2**63)), ints(3), ints(-1)),
    case("Slice", X, ints(3), ints(0), ints(3), ints(-2)),
    case("Slice", X, ints(1000, 0), ints(-1000, 4), ints(3, 2), ints(-3, 2)),
    case("Slice", (7,), ints(5), ints(1), ints(0), ints(-1)),
    case("Slice", X, opset=9, starts=[1, 0], ends=[3, 4], axes=[1, 2]),
]
TILES = [
    case("Tile", X, ints(1, 1, 2, 3)),
    case("Tile", X, ints(2, 1, 1, 1)),
    case("Tile", X, ints(1, 1, 1, 1)),
    case("Tile", (1, 3, 1), ints(4, 2, 3)),
    case("Expand", (2, 1, 3, 1), ints(2, 4, 3, 5)),
    case("Expand", (3, 1), ints(2, 1, 4)),
    case("Expand", (2, 3), ints(1)),
    case("Identity", X),
]
DEPTHS = [
    case("DepthToSpace", (2, 8, 2, 3), blocksize=2),
    case("DepthToSpace", (2, 8, 2, 3), blocksize=2, mode="CRD"),
    case("DepthToSpace", (1, 18, 2, 1), blocksize=3, mode="DCR"),
    case("DepthToSpace", (1, 18, 2, 1), blocksize=3, mode="CRD"),
    case("SpaceToDepth", (2, 3, 4, 6), blocksize=2),
    case("SpaceToDepth", (1, 2, 6, 3), blocksize=3),
    case("SpaceToDepth", (1, 2, 6, 3), blocksize=3, mode="CRD", opset=28),
]
CENTERS = [
    case("CenterCropPad", X, ints(2, 3, 7, 2)),
    case("CenterCropPad", X, ints(3, 8), axes=[2, -1]),
    case("CenterCropPad", X, ints(1, 2), axes=[2, 3]),
    case("CenterCropPad", (5,), ints(8)),
]
TRIANGLES = [
    case("Trilu", (2, 4, 5)),
    case("Trilu", (4, 3), upper=0),
    case("Trilu", (2, 4, 5), np.array(1), upper=0),
    case("Trilu", (2, 4, 5), np.array(-2), upper=1),
]
CHOICES = [
    case("Compress", X, np.array([True, False, True]), axis=1),
    case("Compress", (2, 3), np.array([False, True, True, False, True])),
    case("Compress", X, np.array([False, True, True]), axis=-1),
    case("ReverseSequence", (4, 3, 2), ints(4, 1, 2)),
    case("ReverseSequence", (3, 4, 2), ints(2, 4, 3), batch_axis=0, time_axis=1),
]
CASES = [
    *RESHAPES,
    *SQUEEZES,
    *TRANSPOSES,
    *CONCATS,
    *PADS,
    *COPYING_PADS,
    *SLICES,
    *TILES,
    *DEPTHS,
    *CENTERS,
    *TRIANGLES,
    *CHOICES,
]
ELSEWHERE = {("Split", 0)}


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    check_gradient(case)


@pytest.mark.parametrize(
    "split",
    [
        "a, b, c = Split <axis = 1, num_outputs = 3> (x)",
        "a, b, c = Split <axis = -2> (x, sizes)",
    ],
)
@pytest.mark.parametrize("read", ["a", "b", "c", "a,c", "b,c", "a,b", "a,b,c"])
def test_split(split, read):
    text = f"""
        g (double[2,6,4] x) => (double y) <int64[3] sizes = {{3, 1, 2}}>
        {{
            {split}
            aa = Sin (a)
            bb = Exp (b)
            cc = Mul (c, c)
            y = Concat <axis = -2> ({",".join(2 * name for name in read.split(","))})
        }}"""
    check_graph(graph(text), normal(2, 6, 4))


def test_pads_that_go_round_more_than_once_are_refused():
    padded = case("Pad", (2, 3), ints(0, 3, 0, 0), mode="reflect")
    with pytest.raises(UnsupportedOperator, match="runtimes disagree"):
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
