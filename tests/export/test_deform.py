"""DeformConv: ONNX Runtime's result, and gradients by differences in float64."""

import numpy as np
import onnx
import pytest

from jataug.errors import UnsupportedOperator
from jataug.export import differentiate

from .checking import case, ids, normal, on_onnx, on_runtime


def deformed(active, mask=False, groups=1, shared=1, size=(5, 6), opset=19, **options):
    """A DeformConv whose offsets leave the image in places."""
    height, width = 3, 4
    kernel = normal(4, 4 // groups, 2, 3, seed=2)
    offset = 1.5 * normal(2, shared * 12, height, width, seed=3)
    weight = normal(2, shared * 6, height, width, seed=5) if mask else None
    inputs = [normal(2, 4, *size, seed=1), kernel, offset, normal(4, seed=4), weight]
    inputs = inputs[: 5 if mask else 4]
    return case(
        "DeformConv",
        *inputs,
        active=active,
        opset=opset,
        group=groups,
        offset_group=shared,
        kernel_shape=[2, 3],
        **options,
    )


CASES = [
    deformed((0,), size=(4, 6)),
    deformed((2,), size=(4, 6)),
    deformed((1, 3), size=(4, 6)),
    deformed((0, 1, 2, 3, 4), mask=True, size=(4, 6), opset=22),
    deformed((0, 2), groups=2, shared=2, size=(4, 6)),
    deformed((0, 2, 4), mask=True, groups=4, shared=2, size=(4, 6)),
    deformed((0, 2), size=(6, 7), strides=[2, 2], pads=[1, 2, 0, 1], opset=22),
    deformed((0, 2), size=(5, 8), dilations=[2, 2]),
]


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_gradient(case):
    """onnx's own evaluator reads DeformConv at places in float32: the forward pass is compared with
    ONNX Runtime's, and differences are those of the graph that is written out.
    """
    single, x = differentiate(case.model(np.float32)), case.start
    onnx.checker.check_model(single, full_check=True)
    name = single.graph.input[0].name
    (expected,) = on_runtime(case.model(np.float32), {name: x.astype(np.float32)})
    seed = normal(*expected.shape, seed=9)
    double = differentiate(case.model(np.float64))

    def run(x):
        return on_onnx(double, {name: x, "grad_y": seed})

    value, gradient = run(x)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    direction = normal(*x.shape, seed=10)
    ahead, behind = (run(x + h * direction)[0] for h in (1e-6, -1e-6))
    change = ((ahead - behind) * seed).sum() / 2e-6
    np.testing.assert_allclose((gradient * direction).sum(), change, rtol=1e-5)
    feeds = {name: x.astype(np.float32), "grad_y": seed.astype(np.float32)}
    found = on_runtime(single, feeds)[1]
    np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=1e-4)


def test_a_volume_is_refused():
    shapes = [(1, 1, 3, 3, 3), (1, 1, 2, 2, 2), (1, 24, 2, 2, 2)]
    volume = case("DeformConv", *shapes, opset=19, kernel_shape=[2, 2, 2])
    with pytest.raises(UnsupportedOperator, match=r"DeformConv .*only images"):
        differentiate(volume.model(np.float32))
