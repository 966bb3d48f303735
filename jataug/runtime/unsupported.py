"""Explains why a runtime refuses a model: a missing operator, opset or IR version, and a cure."""

import re
from typing import TYPE_CHECKING

from jataug.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = ["check_age", "failure", "missing_operator", "refusal"]

_MISSING = (
    # Messages of ONNX Runtime in its order of phases, then of OpenVINO and tract.
    r"Could not find an implementation for (?:the node )?(?P<op>[\w.]+)\(",
    r"Fatal error: (?P<op>[\w.:]+)\(-?\d+\) is not a registered function",
    r"No Op registered for (?P<op>[\w.]+)",
    r"No conversion rule found for operations: (?P<op>[\w.]+)",
    r"Unimplemented\((?P<op>[\w.]+)\)",
)

_OPSET = r"Current official support for domain \S+ is till opset (\d+)"
_IR = r"Unsupported model IR version: \d+, max supported IR version: (\d+)"


def missing_operator(message: str) -> str | None:
    """Return the missing operator that a runtime's error message names, or None."""
    found = (re.search(pattern, message) for pattern in _MISSING)
    return next((hit["op"].replace(":", ".") for hit in found if hit), None)


def refusal(runtime: str, model: "onnx.ModelProto", error: Exception) -> ModelError:
    """Return a one-line error for a model that a runtime refuses to open."""
    said = " ".join(str(error).split())
    if op := missing_operator(said):
        where = _where(model, op)
        if _in_bfloat16(model):
            return ModelError(
                f"{runtime} lacks the operator {op}{where} in bfloat16 on this device; use "
                "another --device, such as cuda, or export with --precision float16 or float32"
            )
        return ModelError(f"{runtime} lacks the operator {op}{where}; {_advice(op)}")
    for pattern, what, here in (
        (_OPSET, "opset", opset_of(model)),
        (_IR, "IR version", model.ir_version),
    ):
        if hit := re.search(pattern, said):
            return ModelError(_newer(runtime, what, here, int(hit[1])))
    return ModelError(f"{runtime} refuses the model: {said}")


def failure(runtime: str, error: Exception) -> ModelError:
    """Return a one-line error for a model that a runtime opened and cannot run."""
    return ModelError(f"{runtime} cannot run the model: {' '.join(str(error).split())}")


def check_age(runtime: str, model: "onnx.ModelProto") -> None:
    """Refuse a model newer than the installed ONNX, for a runtime that accepts any version number.

    Raises:
        ModelError: its opset or IR version is newer.
    """
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if opset_of(model) > newest:
        raise ModelError(_newer(runtime, "opset", opset_of(model), newest))
    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(_newer(runtime, "IR version", model.ir_version, onnx.IR_VERSION))


def opset_of(model: "onnx.ModelProto") -> int:
    """Return the version of ONNX's own operators that a model uses."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def _newer(runtime: str, what: str, here: int, most: int) -> str:
    return (
        f"{runtime} takes models up to {what} {most}, and this one has {here}; convert the "
        "classifier to an older opset (18 runs everywhere) and export it again, or update the "
        "runtime"
    )


def _where(model: "onnx.ModelProto", op: str) -> str:
    kind = op.rpartition(".")[2]
    names = [n.name or n.output[0] for n in model.graph.node if n.op_type == kind]
    return f" (node {names[0]!r})" if names else ""


def _in_bfloat16(model: "onnx.ModelProto") -> bool:
    return any(t.data_type == t.BFLOAT16 for t in model.graph.initializer)


def _advice(op: str) -> str:
    if op == "Loop":
        return "export with --form step or --form unrolled, which have none"
    return "it comes from the classifier; use another backend, or change the classifier"
