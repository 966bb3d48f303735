"""Rules of elementwise ops; one line each where the formula fits one. Broadcasting is the engine's
business.
"""

import math
from typing import Any

from ..graph import Term
from .table import FLAT, Pullback, rule

_FLAT = """
    And ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil ConstantOfShape Equal
    EyeLike Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual NonZero Not OneHot Or Range
    Round Shape Sign Size Xor
"""
FLAT |= {("", name) for name in _FLAT.split()}


def step(mask: Term, like: Term) -> Term:
    """Return a boolean mask as 0 and 1 in the type of `like`."""
    assert like.dtype is not None
    return mask.cast(like.dtype)


_UNARY: dict[str, Pullback] = {
    "Abs": lambda g, Y, X: g * X.sign(),
    "Acos": lambda g, Y, X: -g / (1 - X * X).sqrt(),
    "Acosh": lambda g, Y, X: g / (X * X - 1).sqrt(),
    "Asin": lambda g, Y, X: g / (1 - X * X).sqrt(),
    "Asinh": lambda g, Y, X: g / (X * X + 1).sqrt(),
    "Atan": lambda g, Y, X: g / (X * X + 1),
    "Atanh": lambda g, Y, X: g / (1 - X * X),
    "Cos": lambda g, Y, X: -g * X.same("Sin", X),
    "Cosh": lambda g, Y, X: g * X.same("Sinh", X),
    "Erf": lambda g, Y, X: g * (2 / math.sqrt(math.pi)) * (-(X * X)).exp(),
    "Exp": lambda g, Y, X: g * Y,
    "Identity": lambda g, Y, X: g,
    "Log": lambda g, Y, X: g / X,
    "Neg": lambda g, Y, X: -g,
    "Reciprocal": lambda g, Y, X: -g * Y * Y,
    "Relu": lambda g, Y, X: g * Y.sign(),
    "Sigmoid": lambda g, Y, X: g * Y * (1 - Y),
    "Sin": lambda g, Y, X: g * X.same("Cos", X),
    "Sinh": lambda g, Y, X: g * X.same("Cosh", X),
    "Softplus": lambda g, Y, X: g * X.same("Sigmoid", X),
    "Softsign": lambda g, Y, X: g / ((1 + X.abs()) * (1 + X.abs())),
    "Sqrt": lambda g, Y, X: g * 0.5 / Y,
    "Tan": lambda g, Y, X: g * (1 + Y * Y),
    "Tanh": lambda g, Y, X: g * (1 - Y * Y),
}
for _name, _pullback in _UNARY.items():
    rule(_name, "X")(_pullback)


rule("Add", "A")(lambda g, Y, A, B: g)
rule("Add", "B")(lambda g, Y, A, B: g)
rule("Sub", "A")(lambda g, Y, A, B: g)
rule("Sub", "B")(lambda g, Y, A, B: -g)
rule("Mul", "A")(lambda g, Y, A, B: g * B)
rule("Mul", "B")(lambda g, Y, A, B: g * A)
rule("Div", "A")(lambda g, Y, A, B: g / B)
rule("Div", "B")(lambda g, Y, A, B: -g * Y / B)
rule("Pow", "X")(lambda g, Z, X, Y: g * Y.cast(X.dtype) * X ** (Y.cast(X.dtype) - 1))
rule("Sum", "inputs")(lambda g, Y, *inputs, index: g)


@rule("LeakyRelu", "X")
def leaky_relu(g: Term, Y: Term, X: Term, *, alpha: float = 0.01) -> Term:
    return g * (step(X > 0, X) * (1 - alpha) + alpha)


@rule("Clip", "X")
def clip(g: Term, Y: Term, X: Term, min: Any = None, max: Any = None) -> Term:
    # Clip passes the gradient where it left its input alone, the bounds included: pixels at exactly
    # 0 or 1 under a
    # model's own clip must keep theirs.
    return g * step(Y.equals(X), X)


@rule("HardSigmoid", "X")
def hard_sigmoid(g: Term, Y: Term, X: Term, *, alpha: float = 0.2, beta: float = 0.5) -> Term:
    return g * step((Y > 0) & (Y < 1), X) * alpha


@rule("HardSwish", "X")
def hard_swish(g: Term, Y: Term, X: Term) -> Term:
    gate = X.same("HardSigmoid", X, alpha=1 / 6, beta=0.5)
    return g * (gate + X * step((gate > 0) & (gate < 1), X) * (1 / 6))


@rule("Elu", "X")
def elu(g: Term, Y: Term, X: Term, *, alpha: float = 1.0) -> Term:
    return g * (step(X > 0, X) + step(X <= 0, X) * (X.minimum(0.0).exp() * alpha))


@rule("Gelu", "X")
def gelu(g: Term, Y: Term, X: Term, *, approximate: str = "none") -> Term:
    if approximate == "tanh":
        c = math.sqrt(2 / math.pi)
        t = X.same("Tanh", (X + X * X * X * 0.044715) * c)
        return g * ((t + 1) * 0.5 + X * 0.5 * (1 - t * t) * ((X * X * 0.134145 + 1) * c))
    cdf = (X.same("Erf", X * math.sqrt(0.5)) + 1) * 0.5
    pdf = (X * X * -0.5).exp() * (1 / math.sqrt(2 * math.pi))
    return g * (cdf + X * pdf)


@rule("PRelu", "X")
def prelu(g: Term, Y: Term, X: Term, slope: Term) -> Term:
    return g * (step(X > 0, X) + step(X <= 0, X) * slope)


@rule("Dropout", "data")
def dropout(
    g: Term,
    Y: Term,
    data: Term,
    ratio: Term | None = None,
    training_mode: Term | None = None,
    *,
    seed: int = 0,
) -> Term:
    return g


@rule("Cast", "input")
def cast(g: Term, Y: Term, input: Term, *, to: int, saturate: int = 1) -> Term:
    return g.cast(input.dtype)
