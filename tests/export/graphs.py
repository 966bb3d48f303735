"""Whole graphs, written as ONNX text, whose gradient is checked along one random direction."""

import numpy as np
import onnx
import onnx.parser

from jataug.export import differentiate

from .checking import normal, on_onnx, on_runtime

__all__ = ["check_graph", "graph"]


def graph(text: str, opset: int = 18) -> onnx.ModelProto:
    """Return a model whose only input is "x" and whose only output is "y"."""
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]>\n{text}')


def check_graph(
    model: onnx.ModelProto, x: np.ndarray, step: float = 1e-6, original: bool = True
) -> onnx.ModelProto:
    """Assert that the gradient agrees with central differences, and return the gradient's graph.

    float64 runs in onnx's own evaluator, float32 in ONNX Runtime: there the graph must be linear
    around `x`, and `step` a power of two. Where onnx's evaluator lacks the `original`, the forward
    pass of the gradient's graph stands for it.
    """
    vjp = differentiate(model)
    onnx.checker.check_model(vjp, full_check=True)
    run = on_onnx if x.dtype == np.float64 else on_runtime

    def forward(x: np.ndarray) -> np.ndarray:
        if original:
            return run(model, {"x": x})[0]
        shape = [d.dim_value or len(x) for d in vjp.graph.output[0].type.tensor_type.shape.dim]
        return run(vjp, {"x": x, "grad_y": np.zeros(shape, x.dtype)})[0]

    value = forward(x)
    seed = normal(*value.shape, seed=100).astype(x.dtype)
    again, gradient = run(vjp, {"x": x, "grad_y": seed})
    np.testing.assert_allclose(again, value, rtol=1e-6, atol=1e-12)
    direction = (np.random.default_rng(101).integers(-64, 65, x.shape) / 64).astype(x.dtype)
    ahead, behind = (forward(x + h * direction) for h in (step, -step))
    change = ((ahead.astype(np.float64) - behind) * seed).sum() / (2 * step)
    expected = (gradient.astype(np.float64) * direction).sum()
    size = np.abs(gradient * direction).max()
    assert size > 0
    np.testing.assert_allclose(expected, change, rtol=1e-4, atol=1e-5 * size)
    return vjp
