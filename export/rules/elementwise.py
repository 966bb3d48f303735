"""Rules of elementwise ops. `differentiate` undoes their broadcasting."""

import math
from collections.abc import Callable

import numpy as np

from jataug.errors import UnsupportedOperator

from ..graph.builder import Term
from ..graph.term import made_by
from .table import FLAT, Pullback, rule

_FLAT = """
    And ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Ceil
    ConstantOfShape Equal EyeLike Floor Greater GreaterOrEqual HammingWindow HannWindow Hardmax
    IsInf IsNaN Less LessOrEqual MelWeightMatrix Multinomial NonZero Not Or RandomNormal
    RandomNormalLike RandomUniform RandomUniformLike Round Shape Sign Size Xor
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
rule("PRelu", "X")(lambda g, Y, X, slope: g * (step(X > 0, X) + step(X <= 0, X) * slope))
rule("PRelu", "slope")(lambda g, Y, X, slope: g * X.minimum(0.0))
rule("Sum", "inputs")(lambda g, Y, *inputs, index: g)
rule("Mean", "inputs")(lambda g, Y, *inputs, index: g * (1 / len(inputs)))
rule("Where", "X")(lambda g, Z, condition, X, Y: condition.where(g, 0.0))
rule("Where", "Y")(lambda g, Z, condition, X, Y: condition.where(0.0, g))
rule("Mod", "A")(lambda g, C, A, B, *, fmod=0: g)
rule("Mod", "B")(lambda g, C, A, B, *, fmod=0: -g * C.same("Round", (A - C) / B))


@rule("Max", "inputs")
@rule("Min", "inputs")
def extreme(g: Term, Y: Term, *inputs: Term, index: int) -> Term:
    """Give the whole cotangent to the first of tied inputs."""
    mask = inputs[index].equals(Y)
    for earlier in inputs[:index]:
        tied = earlier.equals(Y)
        mask = mask & tied.same("Not", tied)
    return g * step(mask, Y)


@rule("Pow", "X")
def pow_base(g: Term, Z: Term, X: Term, Y: Term) -> Term:
    if Y.const is None:
        y = Y.cast(X.dtype)
        # 0 * x^-1 would be NaN at x = 0.
        return g * y * X ** (y - 1 + step(y.equals(0.0), X))
    p = np.asarray(Y.const, X.dtype)
    if p.size == 1 and p.item() in _POWERS:
        return g * _POWERS[p.item()](Z, X)
    return g * g.graph.constant(p) * X ** g.graph.constant(np.where(p == 0, p, p - 1))


_POWERS: dict[float, Callable[[Term, Term], Term | float]] = {
    0.5: lambda Z, X: 0.5 / Z,
    1.0: lambda Z, X: 1.0,
    2.0: lambda Z, X: X * 2,
    3.0: lambda Z, X: X * X * 3,
}
"""Exponents for which the derivative needs no Pow."""


@rule("Pow", "Y")
def pow_exponent(g: Term, Z: Term, X: Term, Y: Term) -> Term:
    # 0^y is 0 for every y > 0, so its derivative is 0, but 0 * log(0) is NaN.
    return (g * Z * X.equals(0.0).where(1.0, X).log()).cast(Y.dtype)


@rule("LeakyRelu", "X")
def leaky_relu(g: Term, Y: Term, X: Term, *, alpha: float = 0.01) -> Term:
    return g * (step(X > 0, X) * (1 - alpha) + alpha)


_LAYERS = {"Conv", "ConvTranspose", "BatchNormalization", "Gemm"}
"""The ops after which a Clip is a ReLU6."""


@rule("Clip", "X")
def clip(g: Term, Y: Term, X: Term, min: Term | None = None, max: Term | None = None) -> Term:
    # Clip passes the gradient where it leaves its input unchanged, bounds included: pixels at
    # exactly 0 or 1 must keep their gradient under a model's own clip. ReLU6 stops it at its
    # bounds, as in torch. Its mask then needs only the output, and a runtime can fuse the ReLU6
    # with the layer before it.
    bounds = [bound for bound in (min, max) if bound is not None]
    fixed = all(bound.const is not None and bound.const.size == 1 for bound in bounds)
    if made_by(X.value) not in _LAYERS or not bounds or not fixed:
        return g * step(Y.equals(X), X)
    return g * step(_inside(Y, min, max).equals(Y), X)


def _inside(Y: Term, min: Term | None, max: Term | None) -> Term:
    """Return a term that equals Y only where Y is strictly inside the bounds."""
    moved = [_beside(min, Y, np.inf), _beside(max, Y, -np.inf)]
    given = moved if moved[1] is not None else moved[:1]
    return Y.graph.op("Clip", Y, *given, dtype=Y.dtype, shape=Y.shape)


def _beside(bound: Term | None, Y: Term, towards: float) -> Term | None:
    if bound is None or bound.const is None:
        return None
    next_one = np.nextafter(bound.const.astype(Y.dtype), np.array(towards, Y.dtype))
    return Y.graph.constant(next_one.reshape(()))


@rule("Clip", "min")
def clip_min(g: Term, Y: Term, X: Term, min: Term, max: Term | None = None) -> Term:
    mask = min > X
    return g * step(mask if max is None else mask & (min <= max), X)


@rule("Clip", "max")
def clip_max(g: Term, Y: Term, X: Term, min: Term | None, max: Term) -> Term:
    return g * step((X if min is None else X.maximum(min)) > max, X)


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


@rule("Celu", "X")
def celu(g: Term, Y: Term, X: Term, *, alpha: float = 1.0) -> Term:
    return g * (X.minimum(0.0) * (1 / alpha)).exp()


@rule("Selu", "X")
def selu(
    g: Term,
    Y: Term,
    X: Term,
    *,
    alpha: float = 1.67326319217681884765625,
    gamma: float = 1.05070102214813232421875,
) -> Term:
    return elu(g, Y, X, alpha=alpha) * gamma


@rule("ThresholdedRelu", "X")
def thresholded_relu(g: Term, Y: Term, X: Term, *, alpha: float = 1.0) -> Term:
    return g * step(alpha < X, X)


@rule("Shrink", "input")
def shrink(g: Term, Y: Term, input: Term, *, bias: float = 0.0, lambd: float = 0.5) -> Term:
    return g * step(input.abs() > lambd, input)


@rule("Mish", "X")
def mish(g: Term, Y: Term, X: Term) -> Term:
    t = X.same("Tanh", X.same("Softplus", X))
    return g * (t + X * X.same("Sigmoid", X) * (1 - t * t))


@rule("Swish", "X")
def swish(g: Term, Y: Term, X: Term, *, alpha: float = 1.0) -> Term:
    s = X.same("Sigmoid", X * alpha)
    return g * (s + Y * (1 - s) * alpha)


@rule("Gelu", "X")
def gelu(g: Term, Y: Term, X: Term, *, approximate: str = "none") -> Term:
    if approximate == "tanh":
        c = math.sqrt(2 / math.pi)
        t = X.same("Tanh", (X + X * X * X * 0.044715) * c)
        return g * ((t + 1) * 0.5 + X * 0.5 * (1 - t * t) * ((X * X * 0.134145 + 1) * c))
    cdf = (X.same("Erf", X * math.sqrt(0.5)) + 1) * 0.5
    pdf = (X * X * -0.5).exp() * (1 / math.sqrt(2 * math.pi))
    return g * (cdf + X * pdf)


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
    if training_mode is not None and (training_mode.const is None or training_mode.const.any()):
        raise UnsupportedOperator("Dropout in training form; export the model in eval mode")
    return g


@rule("Cast", "input")
def cast(
    g: Term, Y: Term, input: Term, *, to: int, saturate: int = 1, round_mode: str = "up"
) -> Term:
    return g.cast(input.dtype)
