"""Every op of the ai.onnx registry has a rule, is flat, is expanded or replaced, or is excluded for
a reason.
"""

import onnx
import pytest

from jataug.export.graph.quantised_values import STRAIGHT
from jataug.export.model.folding.functions import is_composite
from jataug.export.rules import FLAT, table

NEWEST = onnx.defs.onnx_opset_version()
REGISTRY = {s.name for s in onnx.defs.get_all_schemas_with_history() if not s.domain}
RULES = {op_type for domain, op_type in table._RULES if not domain}
FLAT_OPS = {op_type for domain, op_type in FLAT if not domain}
COMPOSITE = {op_type for op_type in REGISTRY if is_composite(op_type, NEWEST)}
PASSES = {
    "Constant": "becomes an initializer",
    "If": "the branch that a constant condition takes",
    "Loop": "unrolled where its trip count is constant",
    "DeformConv": "written out as readings and a product",
    "Scan": "unrolled",
    "RNN": "unrolled",
    "GRU": "unrolled",
    "LSTM": "unrolled",
    "Upsample": "the version converter makes it Resize",
    "Scatter": "the version converter makes it ScatterElements",
}
"""Ops that are gone before the rules are looked up."""

STRINGS = "works on text"
SEQUENCES = "works on sequences or optional values; no classifier puts one between image and logits"
SIGNALS = "complex signals"
LABELS = "a loss over labels: differentiate the logits"
REGIONS = "regions of interest: detection, not classification"
EXCLUDED = {
    "Bernoulli": "a sample's derivative is zero and its mean's is not",
    "BitCast": "the bits of a number have no derivative",
    "ConcatFromSequence": SEQUENCES,
    "DFT": SIGNALS,
    "Det": "needs a matrix inverse, which ONNX does not have",
    "ImageDecoder": "reads bytes",
    "MaxRoiPool": REGIONS,
    "NegativeLogLikelihoodLoss": LABELS,
    "NonMaxSuppression": REGIONS,
    "Optional": SEQUENCES,
    "OptionalGetElement": SEQUENCES,
    "OptionalHasElement": SEQUENCES,
    "Range": "of bounds that depend on the image, its length would be data",
    "RegexFullMatch": STRINGS,
    "RoiAlign": REGIONS,
    "STFT": SIGNALS,
    "SequenceAt": SEQUENCES,
    "SequenceConstruct": SEQUENCES,
    "SequenceEmpty": SEQUENCES,
    "SequenceErase": SEQUENCES,
    "SequenceInsert": SEQUENCES,
    "SequenceLength": SEQUENCES,
    "SequenceMap": SEQUENCES,
    "SoftmaxCrossEntropyLoss": LABELS,
    "SplitToSequence": SEQUENCES,
    "StringConcat": STRINGS,
    "StringNormalizer": STRINGS,
    "StringSplit": STRINGS,
    "TensorScatter": "a cache of keys and values, of language models",
    "TfIdfVectorizer": STRINGS,
    "Unique": "the size of its result is data",
}


ESTIMATES = {
    "ConvInteger",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
}
"""Ops with a rule whose gradient is straight-through, no derivative."""


def test_straight_through_ops_are_those_that_make_whole_numbers():
    assert {op_type for domain, op_type in STRAIGHT if not domain} == ESTIMATES
    assert ESTIMATES <= RULES


def test_every_op_of_the_registry_is_accounted_for():
    accounted = RULES | FLAT_OPS | COMPOSITE | set(PASSES) | set(EXCLUDED)
    missing = sorted(REGISTRY - accounted)
    assert not missing, f"neither differentiated nor excluded: {' '.join(missing)}"


def test_nothing_is_accounted_for_that_the_registry_does_not_have():
    assert not (RULES | FLAT_OPS | set(PASSES) | set(EXCLUDED)) - REGISTRY


@pytest.mark.parametrize(
    ("kinds", "others"),
    [
        (set(EXCLUDED), RULES | FLAT_OPS | COMPOSITE | set(PASSES)),
        (set(PASSES), RULES | FLAT_OPS | COMPOSITE),
        (COMPOSITE, RULES | FLAT_OPS),
        (FLAT_OPS, RULES),
    ],
)
def test_an_op_is_of_one_kind(kinds, others):
    assert not kinds & others


def test_composite_ops_are_those_that_are_tested():
    tested = {
        "AffineGrid",
        "Attention",
        "CastLike",
        "CausalConvWithState",
        "LinearAttention",
        "RotaryEmbedding",
        "SwiGLU",
    }
    assert tested == COMPOSITE
