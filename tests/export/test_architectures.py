"""Image classifiers of transformers and torchvision: the gradient beside torch's in float64."""

import importlib.util
import os

import pytest
from architectures import ARCHITECTURES, measure

from jataug.export.check.gradient import TOLERANCE, check_gradient
from jataug.export.model.load import load_model, prepare
from jataug.preprocessing import Preprocessing

MISSING = [p for p in ("transformers", "torchvision") if importlib.util.find_spec(p) is None]
REQUIRED = "CI" in os.environ or "JATAUG_REQUIRE_MATERIAL" in os.environ
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore"),  # those of the packages
    pytest.mark.skipif(bool(MISSING) and not REQUIRED, reason=f"not installed: {MISSING}"),
]
TITLES = [architecture.title for architecture in ARCHITECTURES]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=TITLES)
def test_gradient(architecture):
    found = measure(architecture)
    assert found.error <= 1e-4, found


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=TITLES)
def test_self_check(architecture):
    """It accepts every one of them: a refusal raises."""
    proto = load_model(architecture.exported(architecture.module()))
    preprocessing = Preprocessing()
    network = prepare(proto, preprocessing=preprocessing)
    assert network.image_shape[0] == "N"
    assert "onnxruntime" in check_gradient(network, preprocessing)


def test_the_table_is_what_is_promised():
    assert len({architecture.name for architecture in ARCHITECTURES}) >= 40
    assert sum(architecture.exporter == "older" for architecture in ARCHITECTURES) >= 10
    assert len(set(TITLES)) == len(TITLES)
    assert TOLERANCE <= 0.02
