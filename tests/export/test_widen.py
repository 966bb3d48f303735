import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jataug.errors import ModelError
from jataug.export import differentiate
from jataug.export.model.element_types.widen import widen

from .checking import normal, on_runtime


def half_model():
    """A product, a cast down from float32, a constant of its own and a branch, all in float16."""
    weight = numpy_helper.from_array(normal(4, 3).astype(np.float16), "w")
    one = numpy_helper.from_array(np.array(1, np.float16))
    branch = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], value=one),
            helper.make_node("Mul", ["u", "c"], ["v"]),
        ],
        "branch",
        [],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT16, None)],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Exp", ["b"], ["e"]),
        helper.make_node("Cast", ["e"], ["u"], to=TensorProto.FLOAT16),
        helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch),
    ]
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["N", 3])],
        [weight, numpy_helper.from_array(np.array(True), "yes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_gradients_are_float32_and_do_not_vanish():
    model = half_model()
    vjp = differentiate(widen(model))
    assert {value.type.tensor_type.elem_type for value in vjp.graph.output} == {TensorProto.FLOAT}
    x = normal(2, 4).astype(np.float32)
    seed = np.full((2, 3), 1e-8, np.float32)
    value, found = on_runtime(vjp, {"x": x, "grad_y": seed})
    w = normal(4, 3).astype(np.float16).astype(np.float64)
    np.testing.assert_allclose(value, np.exp(x @ w), rtol=1e-5)
    np.testing.assert_allclose(found, (1e-8 * np.exp(x @ w)) @ w.T, rtol=1e-4)
    half = differentiate(model)
    feeds = {"x": x.astype(np.float16), "grad_y": seed.astype(np.float16)}
    assert not on_runtime(half, feeds)[1].any()


def test_the_model_itself_stays():
    model = half_model()
    before = model.SerializeToString(deterministic=True)
    widen(model)
    assert model.SerializeToString(deterministic=True) == before


def test_weights_that_were_not_loaded_are_refused():
    model = half_model()
    weight = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weight, "weights.bin")
    weight.ClearField("raw_data")
    with pytest.raises(ModelError, match="not loaded"):
        widen(model)
