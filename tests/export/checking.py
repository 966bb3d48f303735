"""The gradient checker: one op, one random direction, against central differences in float64."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from jataug.export import differentiate

from .evaluators import EVALUATORS

__all__ = ["Case", "case", "check_gradient", "distinct", "ids", "normal", "on_onnx", "on_runtime"]


@dataclass(frozen=True)
class Case:
    """A model of one op.

    Attributes:
        inputs: the op's inputs; None for one that is left out.
        active: the inputs to differentiate with respect to. One alone is the model's input; several
            are cut out of one vector, so that every rule and their sum are checked together.
        linear: differences are exact at any step, so float32 will do: the oracle is then ONNX
            Runtime, for the ops that onnx's own evaluator computes wrongly.
    """

    op_type: str
    inputs: tuple[Any, ...]
    active: tuple[int, ...]
    opset: int
    linear: bool
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shapes = ",".join("-" if x is None else str(list(np.shape(x))) for x in self.inputs)
        options = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        parts = [self.op_type, shapes.replace(" ", ""), options.replace(" ", "")]
        return "-".join([*filter(None, parts), "".join(map(str, self.active)), str(self.opset)])

    @property
    def dtype(self) -> Any:
        return np.float32 if self.linear else np.float64

    @property
    def start(self) -> np.ndarray:
        """The value of the model's only input."""
        pieces = [np.asarray(self.inputs[i], self.dtype) for i in self.active]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate([piece.ravel() for piece in pieces])

    def model(self, dtype: Any) -> onnx.ModelProto:
        """Return the model with floating-point inputs of this type."""
        names = [f"x{i}" if x is not None else "" for i, x in enumerate(self.inputs)]
        nodes, weights = [], []
        for i, x in enumerate(self.inputs):
            if x is None or i in self.active:
                continue
            array = np.asarray(x)
            floating = array.dtype.kind == "f"
            weights.append(
                numpy_helper.from_array(array.astype(dtype) if floating else array, names[i])
            )
        start = self.start
        if len(self.active) > 1:
            taken, first = np.eye(start.size), 0
            for i in self.active:
                size, shape = np.size(self.inputs[i]), np.array(np.shape(self.inputs[i]), np.int64)
                columns = np.ascontiguousarray(taken[:, first : first + size].astype(dtype))
                weights.append(numpy_helper.from_array(columns, f"take{i}"))
                weights.append(numpy_helper.from_array(shape, f"shape{i}"))
                nodes.append(helper.make_node("MatMul", ["vector", f"take{i}"], [f"flat{i}"]))
                nodes.append(helper.make_node("Reshape", [f"flat{i}", f"shape{i}"], [names[i]]))
                first += size
        nodes.append(helper.make_node(self.op_type, names, ["y"], **self.attributes))
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        name = "vector" if len(self.active) > 1 else names[self.active[0]]
        graph = helper.make_graph(
            nodes,
            "one_op",
            [helper.make_tensor_value_info(name, kind, start.shape)],
            [onnx.ValueInfoProto(name="y")],
            weights,
        )
        graph.output[0].type.tensor_type.elem_type = kind
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def case(
    op_type: str,
    *inputs: Any,
    active: tuple[int, ...] = (0,),
    opset: int = 18,
    linear: bool = False,
    **attributes: Any,
) -> Case:
    """Return a case; an input given as a tuple of sizes is filled with random numbers."""
    filled = [normal(*x, seed=i) if isinstance(x, tuple) else x for i, x in enumerate(inputs)]
    return Case(op_type, tuple(filled), active, opset, linear, attributes)


def ids(cases: list[Case]) -> list[str]:
    return [str(case) for case in cases]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def distinct(*shape: int, seed: int = 0) -> np.ndarray:
    """Whole numbers in random order: no ties, and none within a step of the differences."""
    return np.random.default_rng(seed).permutation(int(np.prod(shape))).reshape(shape) * 1.0


_FLOAT32_BODIES = {"Attention", "RotaryEmbedding"}
"""Expanded to schema bodies: Attention's takes its scale in float32, and RotaryEmbedding is
compared on ONNX Runtime, in float32. An entry that cancels is right to the size of the others only.
"""


def check_gradient(case: Case) -> None:
    """Assert that the derivative of a case agrees with central differences along one direction."""
    model = case.model(case.dtype)
    vjp = differentiate(model)
    onnx.checker.check_model(vjp, full_check=True)
    run = on_runtime if case.linear else on_onnx
    x = case.start
    (name,) = (value.name for value in model.graph.input)
    (value,) = run(model, {name: x})
    seed = normal(*value.shape, seed=100).astype(case.dtype)
    forward, gradient = run(vjp, {name: x, "grad_y": seed})
    loose = 1e-6 * np.abs(value).max(initial=0) if case.op_type in _FLOAT32_BODIES else 0
    np.testing.assert_allclose(forward, value, rtol=1e-6, atol=max(1e-12, loose))
    assert gradient.shape == x.shape

    # Multiples of 1/64 and a step of 1/4: whole numbers move without rounding, in float32 too.
    direction = (np.random.default_rng(101).integers(-64, 65, x.shape) / 64).astype(case.dtype)
    step = 0.25 if case.linear else 1e-6
    ahead, behind = (run(model, {name: x + h * direction})[0] for h in (step, -step))
    change = ((ahead.astype(np.float64) - behind) * seed).sum() / (2 * step)
    expected = (gradient.astype(np.float64) * direction).sum()
    size = np.abs(gradient * direction).max(initial=0)
    np.testing.assert_allclose(expected, change, rtol=1e-4, atol=1e-5 * size + 1e-9)
    if not case.linear:
        # A graph that only onnx's own evaluator understands is of no use.
        feeds = {name: x.astype(np.float32), "grad_y": seed.astype(np.float32)}
        found = on_runtime(differentiate(case.model(np.float32)), feeds)[1]
        error = np.linalg.norm(found - gradient) / max(np.linalg.norm(gradient), 1e-12)
        assert error < 1e-4, f"ONNX Runtime differs by {error:.1e}"


def on_onnx(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[np.ndarray]:
    """Return a model's outputs by onnx's own evaluator."""
    return ReferenceEvaluator(model, new_ops=EVALUATORS).run(None, feeds)


def on_runtime(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[np.ndarray]:
    """Return a model's outputs by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)
