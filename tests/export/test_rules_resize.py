"""Resize. onnx's own evaluator and ONNX Runtime disagree in places: ONNX Runtime is the oracle."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from jataug.errors import ModelError, UnsupportedOperator
from jataug.export import differentiate
from jataug.export.rules.resize import Axis, nearest_places, resize_matrix

from .checking import case, check_gradient, ids, normal, on_runtime

COORDINATES = (
    "half_pixel",
    "pytorch_half_pixel",
    "half_pixel_symmetric",
    "asymmetric",
    "align_corners",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
X = (2, 3, 4, 5)


def ints(*values):
    return np.array(values, np.int64)


def floats(*values):
    return np.array(values, np.float32)


def resized(inputs, weights, **attributes):
    node = helper.make_node("Resize", inputs, ["y"], **attributes)
    weights = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    y = onnx.ValueInfoProto(name="y")
    y.type.tensor_type.elem_type = 1
    x = helper.make_tensor_value_info("x", 1, ["N", 1, None, None])
    graph = helper.make_graph([node], "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)


def runtime_matrix(axis, by_size):
    """The matrix of one axis, by resizing the columns of the identity."""
    attributes = {"mode": axis.mode, "coordinate_transformation_mode": axis.coordinates}
    if axis.mode == "nearest":
        attributes["nearest_mode"] = axis.rounding
    if axis.mode == "cubic":
        attributes |= {"cubic_coeff_a": axis.cubic_coeff_a}
        attributes |= {"exclude_outside": int(axis.exclude_outside)}
    if axis.mode != "nearest":
        attributes["antialias"] = int(axis.antialias)
    weight = ints(axis.size, axis.result) if by_size else floats(1, axis.scale)
    inputs = ["x", "", "", "w"] if by_size else ["x", "", "w"]
    model = resized(inputs, {"w": weight}, axes=[2, 3], **attributes)
    identity = np.eye(axis.size, dtype=np.float32)[None, None]
    return on_runtime(model, {"x": identity})[0][0, 0].T


def axes(size, **options):
    """By factor and by size; where the size stays, ONNX Runtime copies whatever the factor."""
    for scale in (0.4, 0.5, 1.3, 2.0, 2.5, 3.0):
        result = int(np.float32(size) * np.float32(scale))
        if result not in (0, size):
            yield Axis(size, result, scale, **options), False
    for result in (1, 4, 9):
        if result != size:
            yield Axis(size, result, result / size, **options), True


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_nearest_places_are_those_of_the_runtime(coordinates, rounding):
    sure = 0
    for size in (1, 2, 5, 8):
        for axis, by_size in axes(size, coordinates=coordinates, rounding=rounding):
            places = nearest_places(axis)
            if places is not None:
                sure += 1
                matrix = np.equal.outer(places, np.arange(size))
                np.testing.assert_array_equal(matrix, runtime_matrix(axis, by_size), str(axis))
    assert sure >= 10


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize(
    "options",
    [
        {"mode": mode, "antialias": antialias, **cubic}
        for antialias in (False, True)
        for mode, cubics in (
            ("linear", [{}]),
            (
                "cubic",
                [
                    {"cubic_coeff_a": a, "exclude_outside": e}
                    for a, e in itertools.product((-0.75, -0.5), (False, True))
                ],
            ),
        )
        for cubic in cubics
    ],
    ids=str,
)
def test_matrices_are_those_of_the_runtime(coordinates, options):
    for size in (1, 2, 5, 8):
        for axis, by_size in axes(size, coordinates=coordinates, **options):
            expected = runtime_matrix(axis, by_size)
            np.testing.assert_allclose(resize_matrix(axis), expected, 0, 2e-5, err_msg=str(axis))


NEAREST = [
    case("Resize", X, None, floats(1, 1, 2, 3), linear=True, nearest_mode="floor"),
    case("Resize", X, None, None, ints(2, 3, 8, 5), coordinate_transformation_mode="asymmetric"),
    case("Resize", X, None, floats(1, 1, 0.5, 0.6), linear=True),
    case("Resize", X, None, floats(1, 1, 1, 1.1), linear=True),
    case("Resize", X, None, None, ints(2, 3, 7, 9), linear=True),
    case("Resize", X, None, None, ints(7, 2), axes=[2, 3], linear=True),
    case("Resize", X, None, floats(2, 3), axes=[3, -2], linear=True),
    # A runtime's own rounding decides which entry is copied here.
    *(
        case(
            "Resize",
            (1, 2, 7, 3),
            None,
            None,
            ints(1, 2, 4, 13),
            linear=True,
            nearest_mode=rounding,
            coordinate_transformation_mode=coordinates,
        )
        for rounding in ROUNDINGS
        for coordinates in ("asymmetric", "half_pixel_symmetric", "align_corners")
    ),
    case("Resize", (1, 1, 9, 9), None, floats(1, 1, 1 / 3 + 1e-6, 0.6), linear=True),
]
SMOOTH = [
    case("Resize", X, None, floats(1, 1, 2, 2), linear=True, mode="linear"),
    case("Resize", X, None, None, ints(2, 3, 9, 3), linear=True, mode="linear"),
    case("Resize", X, None, None, ints(2, 3, 9, 3), linear=True, mode="cubic"),
    case("Resize", X, None, None, ints(7, 2), axes=[2, 3], linear=True, mode="linear", antialias=1),
    case("Resize", X, None, None, ints(3, 2), axes=[2, 3], linear=True, mode="cubic", antialias=1),
    *(
        case(
            "Resize",
            X,
            None,
            None,
            ints(8, 6),
            axes=[2, 3],
            linear=True,
            mode="linear",
            keep_aspect_ratio_policy=policy,
        )
        for policy in ("not_larger", "not_smaller")
    ),
    # The same, in float64 by onnx's own evaluator.
    case("Resize", X, None, None, ints(2, 3, 8, 5), mode="linear"),
    case("Resize", (1, 1, 4, 4), None, None, ints(1, 1, 8, 6), mode="cubic"),
    case("Resize", (1, 2, 6), None, None, ints(1, 2, 9), mode="linear"),
]
OLD = [
    case("Resize", X, floats(1, 1, 2, 2), opset=10, linear=True),
    case("Resize", X, floats(1, 1, 2.5, 1.7), opset=10, linear=True),
    case("Resize", X, floats(1, 1, 0.7, 0.7), opset=10, linear=True),
    case("Resize", X, floats(1, 1, 0.7, 0.7), opset=10, linear=True, mode="linear"),
    case("Resize", X, floats(1, 1, 2, 2), opset=10, linear=True, mode="linear"),
    case("Upsample", X, floats(1, 1, 2, 3), opset=9, linear=True),
    case("Upsample", X, floats(1, 1, 2, 3), opset=9, linear=True, mode="linear"),
    case("Upsample", X, opset=7, linear=True, scales=[1.0, 1.0, 2.0, 2.0]),
    case("Upsample", X, opset=7, linear=True, scales=[1.0, 1.0, 2.0, 2.0], mode="linear"),
]
CASES = [*NEAREST, *SMOOTH]


@pytest.mark.parametrize("case", [*CASES, *OLD], ids=ids([*CASES, *OLD]))
def test_gradient(case):
    check_gradient(case)


def test_two_roundings_in_an_old_model_are_refused():
    """ONNX Runtime rounded down where Resize-10 enlarged an axis, and up where it reduced one."""
    old = case("Resize", X, floats(1, 1, 0.7, 2), opset=10).model(np.float32)
    with pytest.raises(ModelError, match="rounded in two ways"):
        differentiate(old)


def test_a_whole_factor_sums():
    model = case("Resize", X, None, floats(1, 1, 2, 2), linear=True).model(np.float32)
    ops = {node.op_type for node in differentiate(model).graph.node}
    assert ops == {"Resize", "Reshape", "ReduceSum"}


def test_a_batch_of_any_size():
    model = case("Resize", X, None, floats(1, 1, 2, 3), linear=True, mode="cubic").model(np.float32)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    vjp = differentiate(model)
    images, seeds = normal(5, 3, 4, 5).astype(np.float32), normal(5, 3, 8, 15).astype(np.float32)
    whole = on_runtime(vjp, {"x0": images, "grad_y": seeds})[1]
    one = on_runtime(vjp, {"x0": images[3:4], "grad_y": seeds[3:4]})[1]
    np.testing.assert_allclose(whole[3:4], one, rtol=1e-5, atol=1e-6)


BOXES = [
    (0.0, 0.0, 1.0, 1.0),
    (0.2, 0.1, 0.7, 0.83),
    (-0.4, 0.3, 0.9, 1.3),  # beyond the image a constant is read
    (0.6, 0.9, 0.1, 0.2),  # turned over
]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("sizes", [(6, 9), (3, 2), (5, 4), (1, 3)])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_boxes_cut_out_while_resizing(mode, sizes, box):
    """Resizing is affine, so ONNX Runtime's differences are exact at any step."""
    roi = floats(0, 0, box[0], box[1], 1, 1, box[2], box[3])
    scales = floats(1, 1, sizes[0] / 4, (sizes[1] + 0.1) / 5)
    cut = case(
        "Resize",
        X,
        roi,
        scales,
        linear=True,
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=0.5,
    )
    check_gradient(cut)


@pytest.mark.parametrize("height", [1, 2])
def test_a_box_at_a_scale_of_one_is_refused(height):
    """ONNX Runtime copies along that axis, whatever the box."""
    roi, scales = floats(0, 0, 0.2, 0.1, 1, 1, 0.7, 0.8), floats(1, 1, height, 1)
    options = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"}
    with pytest.raises(UnsupportedOperator, match="two readings"):
        differentiate(case("Resize", X, roi, scales, **options).model(np.float32))
