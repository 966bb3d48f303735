"""The table of derivative rules, from the cotangent of an op's output to that of an input."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import onnx_ir as ir

from jataug.errors import UnsupportedOperator

from ..graph.builder import Term

__all__ = [
    "FLAT", "Rule", "add_rule", "custom_rules", "find_rule", "has_rule", "rule", "rule_of"
]  # fmt: skip

Pullback = Callable[..., Term]


@dataclass(frozen=True)
class Rule:
    """One entry of the table: the pullback of one input, or of all inputs of a variadic list."""

    pullback: Pullback
    attributes: frozenset[str]
    indexed: bool
    """The input is one of a variadic list, and the pullback takes its position as `index`."""
    every_output: bool
    """The pullback takes the cotangents and values of all outputs, as tuples."""

    def __call__(self, g: Any, y: Any, node: ir.Node, inputs: list[Term | None], i: int) -> Term:
        """Return the cotangent of input `i`, which may still have the broadcast shape."""
        attributes = {name: _plain(attribute) for name, attribute in node.attributes.items()}
        if unknown := sorted(set(attributes) - self.attributes):
            raise UnsupportedOperator(
                f"{node.op_type} (node {node.name!r}): attribute {unknown[0]} has no derivative "
                "rule"
            )
        if self.indexed:
            attributes["index"] = i
        return self.pullback(g, y, *inputs, **attributes)


_RULES: dict[tuple[str, str], dict[str | int, Rule]] = {}

FLAT: set[tuple[str, str]] = set()
"""Ops whose derivative is zero wherever it is defined, so that no rule is missing."""


def rule(
    op_type: str, wrt: str, *, domain: str = "", every_output: bool = False
) -> Callable[[Pullback], Pullback]:
    """Register the derivative of `op_type` with respect to its input `wrt`.

    The function's signature is the op's schema: (g, Y, *inputs in order, *, attributes with the
    standard's defaults). g is the cotangent of the first output, and Y is that output. An absent
    optional input is None. The function returns the cotangent of `wrt`; `differentiate` undoes
    broadcasting. For a variadic input it takes *inputs and a keyword `index`. The rule replaces a
    derivative of zero, such as that of Sign in a binarised network. A node with an attribute that
    the signature does not name is refused::

        @rule("Swish", "X", domain="com.example")
        def swish(g, Y, X, *, beta=1.0):
            s = (X * beta).same("Sigmoid", X * beta)
            return g * (s + X * beta * s * (1 - s))

    Args:
        op_type: the op's name.
        wrt: the name of the input in the function's signature.
        domain: the op's domain; "" is ai.onnx.
        every_output: g and Y are tuples over all outputs. A zero cotangent is None.
    """

    def register(pullback: Pullback) -> Pullback:
        signature = inspect.signature(pullback).parameters
        positions = [name for name, p in signature.items() if p.kind is not p.KEYWORD_ONLY][2:]
        variadic = signature[wrt].kind is inspect.Parameter.VAR_POSITIONAL
        keywords = {name for name, p in signature.items() if p.kind is p.KEYWORD_ONLY}
        entry = Rule(pullback, frozenset(keywords - {"index"}), variadic, every_output)
        key = "*" if variadic else positions.index(wrt)
        add_rule(domain, op_type, key, entry)
        FLAT.discard((domain, op_type))
        return pullback

    return register


def add_rule(domain: str, op_type: str, key: str | int, entry: Rule) -> None:
    """Add an entry to the table, for the input at position `key`, or for all inputs if "*"."""
    _RULES.setdefault((domain, op_type), {})[key] = entry


def rule_of(op_type: str, i: int) -> Rule:
    """Return the rule for input `i` of an ai.onnx op, which must have one."""
    rules = _RULES["", op_type]
    return rules[i] if i in rules else rules["*"]


def has_rule(domain: str, op_type: str) -> bool:
    """Return whether the op has a rule for at least one input, or a derivative of zero."""
    return (domain, op_type) in _RULES or (domain, op_type) in FLAT


def custom_rules() -> list[str]:
    """Return the ops with a rule that was registered outside jataug."""
    return sorted(
        op_type
        for (_, op_type), entries in _RULES.items()
        for entry in entries.values()
        if not _module(entry.pullback).startswith("jataug.")
    )


def _module(pullback: Pullback) -> str:
    function = pullback.func if isinstance(pullback, partial) else pullback
    return getattr(function, "__module__", None) or ""


def find_rule(node: ir.Node, i: int, opset: int | None) -> Rule:
    """Return the rule for input `i` of `node`.

    Raises:
        UnsupportedOperator: there is none; the message names the op, its domain, opset and node.
    """
    rules = _RULES.get((node.domain, node.op_type), {})
    found = rules.get(i) or rules.get("*")
    if found is None:
        what = f"input {i} of " if rules else ""
        raise UnsupportedOperator(
            f"no derivative rule for {what}{node.op_type} (domain {node.domain or 'ai.onnx'}, "
            f"opset {opset}, "
            f"node {node.name!r}), which lies between the image and the logits; add one with "
            "jataug.export.rule"
        )
    return found


def _plain(attribute: ir.Attr) -> Any:
    if attribute.type == ir.AttributeType.STRING:
        return attribute.as_string()
    return attribute.value
