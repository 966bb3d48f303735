"""ONNX's own test cases of single ops, each differentiated with respect to each floating-point
input and compared with differences in float64.
"""

import re
from collections import Counter

import pytest

from .node_cases import node_cases, outcome

LEAST = 1_925
"""Cases whose gradient was compared and found right: fewer is a loss."""

REFUSED = {
    "a model without the domain ai.onnx": "imports no ai.onnx opset",
    "losses of training": "rule for (NegativeLogLikelihood|SoftmaxCrossEntropy)Loss",
    "operators for signals, not images": "rule for (DFT|STFT|MelWeightMatrix) ",
    "operators for detection": "rule for RoiAlign ",
    "randomness": "(Bernoulli|Random\\w+) .* draws random numbers",
    "classical models": "domain ai.onnx.ml\\), which has no derivative",
    "optional values and sequences": "rule for (OptionalGetElement|Sequence\\w+|Optional\\w*) ",
    "state written in place": "rule for TensorScatter",
    "a preview operator": "domain ai.onnx.preview",
    "rare": "rule for (Det|Unique|OneHot) ",
    "the input is a weight, not an image (input 1 and later)": "rule for input [1-9]\\d* of ",
    "in training form": "in training form",
    "a size depends on data": "cannot be inferred|trip count depends on",
    "scatter with a product as reduction": "no derivative rule for reduction '\\w+'",
    "nothing to differentiate": "do not depend on the image|is 0 everywhere",
    "an axis of size 0": "must be known|do not fit",
}
"""Every reason for which a case is refused, and how its message reads."""

OTHER_RUNTIME = {
    "test_resize_downsample_scales_linear_align_corners": "ONNX Runtime rounds the size of the "
    "result before it aligns the corners, onnx's evaluator afterwards; the gradient is ONNX "
    "Runtime's",
    "test_resize_downsample_scales_cubic_align_corners": "the same",
    "test_maxunpool_export_with_output_shape": "ONNX Runtime counts positions in the given shape, "
    "onnx's evaluator in the smaller one that it infers; the gradient is ONNX Runtime's",
}
"""Cases where onnx's evaluator and ONNX Runtime differ already in the forward pass."""


@pytest.mark.heavy
@pytest.mark.timeout(2400)  # minutes, where nothing else runs
@pytest.mark.filterwarnings("ignore")  # onnx makes some of the numbers by overflow
def test_every_case(capsys):
    outcomes = [(case, outcome(case)) for case in node_cases()]
    counts = Counter(found.kind for _, found in outcomes)
    with capsys.disabled():
        print("\nONNX node cases:", ", ".join(f"{n} {kind}" for kind, n in counts.items()))
    wrong = [found.reason for case, found in outcomes if found.kind == "wrong"]
    assert {reason.split()[0] for reason in wrong} == set(OTHER_RUNTIME)
    assert counts["right"] >= LEAST
    assert counts["no oracle"] <= 320
    infinite = [found.reason for _, found in outcomes if found.kind == "not finite"]
    assert infinite == ["test_acosh_example x"]  # at 1, where its slope is infinite
    refused = [found.reason for _, found in outcomes if found.kind == "refused"]
    known = re.compile("|".join(REFUSED.values()))
    assert [message for message in refused if not known.search(message)] == []
    for reason, pattern in REFUSED.items():
        assert any(re.search(pattern, message) for message in refused), reason


SAMPLE = 8
"""In the normal run every eighth case."""


@pytest.mark.filterwarnings("ignore")
def test_a_sample_of_the_cases():
    found = [outcome(case) for i, case in enumerate(node_cases()) if i % SAMPLE == 0]
    counts = Counter(each.kind for each in found)
    assert counts["wrong"] == 0, [each.reason for each in found if each.kind == "wrong"]
    assert counts["right"] >= LEAST / SAMPLE * 0.9
