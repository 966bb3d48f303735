"""Our APGD beside AutoAttack's own, and AutoAttack itself as an attack of ours."""

import os
import sys
from typing import Any

import material
import numpy as np
import pytest
import torch
from bridge import peers

from jataug.errors import MissingExtra
from jataug.evaluation.attacks.apgd import Apgd
from jataug.evaluation.attacks.perturbation import Context
from jataug.evaluation.attacks.restarts import run_tries
from jataug.evaluation.attacks.suite import attacks_of
from jataug.evaluation.attacks.tries import Rows
from jataug.evaluation.models.model import Calls
from jataug.evaluation.models.onnx import OnnxModel
from jataug.evaluation.models.torch import TorchModel

RADIUS, STEPS = 4 / 255, 12


@pytest.fixture(scope="module")
def library() -> Any:
    try:
        return peers.imported("autoattack", "pyautoattack")[0]
    except material.UnavailableError as error:
        if os.environ.get("CI") == "true" or os.environ.get("JATAUG_REQUIRE_MATERIAL") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Apgd(steps=STEPS), "apgd-ce"),
        (Apgd(steps=STEPS, targets=9, objective="dlr-targeted"), "apgd-t"),
    ],
    ids=["ce", "targeted"],
)
def test_apgd_is_as_strong_as_autoattack_s(
    library: Any, twin: TorchModel, batch: tuple[Rows, np.ndarray], ours: Apgd, theirs: str
) -> None:
    rows, logits = batch
    rows = rows.replace(pixel=np.full(len(rows), RADIUS, np.float32))
    found = run_tries(ours, Calls(twin, 64), rows, logits, Context())
    attack = library.AutoAttack(twin.module, eps=RADIUS, seed=0, version="custom", attacks=[theirs])
    attack.apgd.n_iter = attack.apgd_targeted.n_iter = STEPS
    attack.apgd.n_restarts = attack.apgd_targeted.n_restarts = 1
    with torch.random.fork_rng():
        image = attack.run_standard_evaluation(*map(torch.from_numpy, (rows.image, rows.label)))[0]
    standing = int((twin.logits(image.numpy()).argmax(1) == rows.label).sum())
    here = int((twin.logits(found.image).argmax(1) == rows.label).sum())
    assert 0 < standing < len(rows)
    assert here <= standing + 1


def test_autoattack_is_an_attack(
    library: Any, shipped: OnnxModel, batch: tuple[Rows, np.ndarray], monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", library)
    rows, logits = (batch[0].take(np.arange(6)), batch[1][:6])
    rows = rows.replace(pixel=np.full(6, 16 / 255, np.float32))
    (attack,) = attacks_of(["autoattack"], "quick").values()
    state = torch.get_rng_state()
    found = run_tries(attack, Calls(shipped, 6), rows, logits, Context())
    assert torch.equal(state, torch.get_rng_state())
    assert (found.margin > 0).all()
    assert np.abs(found.image.astype(np.float64) - rows.image).max() <= 16 / 255 + 2e-7


def test_autoattack_says_what_to_install(
    shipped: OnnxModel, batch: tuple[Rows, np.ndarray], monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    (attack,) = attacks_of(["autoattack"], "quick").values()
    with pytest.raises(MissingExtra, match=r"pip install .* pyautoattack"):
        run_tries(attack, Calls(shipped, 6), *batch, Context())
