"""ONNX's own test cases of single ops: which can be differentiated, and whether rightly so."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.reference import ReferenceEvaluator

from jataug.errors import JataugError
from jataug.export import differentiate
from jataug.export.rules import FLAT

from .evaluators import EVALUATORS

__all__ = ["NodeCase", "Outcome", "node_cases", "outcome"]

FLOATING = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16}


SIZES = {"scales", "roi"}
"""Inputs of Resize and Upsample that say a size; they take no other type than float32."""


@dataclass(frozen=True)
class NodeCase:
    """One case, and the input to differentiate with respect to."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[Any, ...]
    op_type: str
    wrt: str


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        kind: "right", "refused", "wrong"; "not finite", which the self-check refuses; or "no
            oracle" where onnx's evaluator cannot run the case in float64, or its values are no
            finite numbers.
        reason: why not.
    """

    kind: str
    reason: str = ""


def node_cases() -> Iterator[NodeCase]:
    """Every case of an op that is not flat, once for each floating-point input."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # onnx makes some of the numbers by overflow
        cases = load_model_tests(kind="node")
    for case in cases:
        proto = case.model
        ops = [node for node in proto.graph.node if node.op_type != "Constant"]
        floating = [v.name for v in proto.graph.input if _kind(v) in FLOATING]
        floating = [name for name in floating if name not in SIZES]
        results = [v.name for v in proto.graph.output if _kind(v) in FLOATING]
        if not results or all((n.domain, n.op_type) in FLAT for n in ops):
            continue
        for name in floating:
            yield NodeCase(case.name, proto, case.data_sets[0][0], ops[-1].op_type, name)


def _kind(value: onnx.ValueInfoProto) -> int:
    return value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else 0


def outcome(case: NodeCase) -> Outcome:
    """Differentiate the case in float64 and compare along a random direction."""
    try:
        proto, x = _single_input(case)
        value = _run(proto, {case.wrt: x})[0]
    except Exception as error:  # onnx's evaluator: anything may come
        return Outcome("no oracle", f"{type(error).__name__}: {error}".splitlines()[0])
    if value.dtype != np.float64 or not np.isfinite(value).all() or not np.isfinite(x).all():
        return Outcome("no oracle", f"its values are {value.dtype}, or not finite")
    try:
        vjp = differentiate(proto, wrt=case.wrt)
    except JataugError as error:
        if "unsupported type: tensor(double)" in str(error):
            return Outcome("no oracle", "the op takes no float64")
        return Outcome("refused", str(error))
    try:
        # At ties and kinks the derivative is a choice: there the case is moved a little.
        if any(_agrees(proto, vjp, case.wrt, at) for at in (x, _nudged(x))):
            return Outcome("right")
    except _NotFiniteError:
        return Outcome("not finite", f"{case.name} {case.wrt}")
    except Exception as error:
        return Outcome("no oracle", f"{type(error).__name__}: {error}".splitlines()[0])
    return Outcome("wrong", f"{case.name} {case.wrt}")


def _single_input(case: NodeCase) -> tuple[onnx.ModelProto, np.ndarray]:
    """Return the model in float64, all inputs but one constant, one output, and that input."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    start = None
    for value, given in zip(list(proto.graph.input), case.inputs, strict=False):
        if isinstance(given, (list, dict)) or given is None:
            raise TypeError(f"{value.name} is no tensor")
        array = given if isinstance(given, TensorProto) else np.asarray(given)
        array = numpy_helper.to_array(array) if isinstance(array, TensorProto) else array
        array = array if value.name in SIZES else _double(array)  # Resize: float32 only
        if value.name == case.wrt:
            start = array
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, array.shape))
        else:
            proto.graph.input.remove(value)
            proto.graph.initializer.append(numpy_helper.from_array(array, value.name))
    _promote(proto.graph.node)
    output = next(v for v in proto.graph.output if _kind(v) in FLOATING)
    del proto.graph.output[:], proto.graph.value_info[:]
    proto.graph.output.add().name = output.name
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    if start is None:
        raise ValueError(f"no input {case.wrt}")
    return proto, start


def _promote(nodes: Any) -> None:
    """Let constants and casts of floating point be float64 as well."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                array = numpy_helper.to_array(attribute.t)
                attribute.t.CopyFrom(numpy_helper.from_array(_double(array), attribute.t.name))
            elif node.op_type == "Constant" and attribute.name.startswith("value_float"):
                numbers = np.array(attribute.floats or attribute.f, np.float64)
                tensor = numpy_helper.from_array(numbers)
                attribute.CopyFrom(helper.make_attribute("value", tensor))
            elif attribute.name in ("to", "dtype", "softmax_precision") and attribute.i in FLOATING:
                attribute.i = TensorProto.DOUBLE
            elif attribute.HasField("g"):
                _promote(attribute.g.node)


def _double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _run(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[np.ndarray]:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ReferenceEvaluator(proto, new_ops=EVALUATORS).run(None, feeds)


def _nudged(x: np.ndarray) -> np.ndarray:
    return x + 2e-2 * np.random.default_rng(7).uniform(0.5, 1, x.shape) * (1 - 0.1 * np.sign(x))


class _NotFiniteError(Exception):
    """The gradient is no number: nothing that could be taken for a right one."""


def _agrees(proto: onnx.ModelProto, vjp: onnx.ModelProto, wrt: str, x: np.ndarray) -> bool:
    random = np.random.default_rng(5)
    value = _run(proto, {wrt: x})[0]
    seed = random.standard_normal(value.shape)
    direction = random.standard_normal(x.shape)
    output = proto.graph.output[0].name
    found = _run(vjp, {wrt: x, f"grad_{output}": seed})
    gradient = found[[v.name for v in vjp.graph.output].index(f"grad_{wrt}")]
    if gradient.shape != x.shape:
        return False
    if not np.isfinite(gradient).all():
        raise _NotFiniteError
    expected = float((gradient * direction).sum())
    size = float(np.linalg.norm(gradient * direction))
    for step in (1e-6, 1e-4, 1e-3):  # some of onnx's evaluators work in float32 inside
        ahead, behind = (_run(proto, {wrt: x + h * direction})[0] for h in (step, -step))
        change = float(((ahead - behind) * seed).sum() / (2 * step))
        if abs(change - expected) <= 1e-4 * max(size, abs(change)) + 1e-7:
            return True
    return False
