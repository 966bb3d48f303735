"""Results are reused only where nothing that made them can have changed without a trace."""

from pathlib import Path
from typing import Any

import material
import numpy as np
import pytest
import torch

from jataug.data import open_source
from jataug.data.source import Source
from jataug.errors import DataError
from jataug.evaluation import evaluate
from jataug.evaluation.attacks import suite
from jataug.evaluation.attacks.ascent import Ascent
from jataug.evaluation.models.torch import TorchModel
from jataug.export.rules import table

OPTIONS: Any = {"attacks": ("pgd:steps=2",), "curves": False, "sanity": False, "device": "cpu"}


class Turned:
    """The shipped classifier, its logits moved by some classes: code that no attribute tells."""

    kind, classes, provider, image_shape = "torch", 10, "here", (1, 28, 28)

    def __init__(self, model: TorchModel, by: int) -> None:
        self._model, self._by = model, by

    def __repr__(self) -> str:
        return "Turned"

    def logits(self, images: Any) -> Any:
        return np.roll(self._model.logits(images), self._by, 1)

    def gradient(self, images: Any, seed: Any) -> Any:
        return self._model.gradient(images, lambda z: np.roll(seed(np.roll(z, self._by, 1)), 1))


class Flipped(torch.nn.Module):
    """The same weights, other code: nothing in the state tells them apart."""

    def __init__(self, inner: torch.nn.Module, sign: float) -> None:
        super().__init__()
        self.inner, self.sign = inner, sign

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(images) * self.sign


def objects(net: torch.nn.Module, changed: bool) -> dict[str, Any]:
    plain = TorchModel(net, (1, 28, 28))
    return {
        "object": Turned(plain, int(changed)),
        "module": Flipped(net, -1.0 if changed else 1.0),
        "TorchModel": TorchModel(Flipped(net, -1.0 if changed else 1.0), (1, 28, 28)),
    }


@pytest.mark.parametrize("kind", ["object", "module", "TorchModel"])
def test_a_changed_model_never_takes_up_the_results_of_another(
    demo_classifier: material.Model, source: Path, tmp_path: Path, kind: str
) -> None:
    before, after = (objects(demo_classifier.module, changed)[kind] for changed in (False, True))
    first = evaluate(before, source, tmp_path / "out", **OPTIONS)
    kept = (tmp_path / "out" / "report.json").read_bytes()
    with pytest.raises(DataError, match="identity"):
        evaluate(after, source, tmp_path / "out", **OPTIONS)
    assert (tmp_path / "out" / "report.json").read_bytes() == kept
    fresh = evaluate(after, source, tmp_path / "fresh", **OPTIONS)
    assert fresh.models[0].clean_accuracy != first.models[0].clean_accuracy


def test_an_identity_lets_it_go_on(
    demo_classifier: material.Model, source: Path, tmp_path: Path
) -> None:
    net, out = demo_classifier.module, tmp_path / "out"
    evaluate(net, source, out, identity="net of Monday", **OPTIONS)
    evaluate(
        net, source, out, identity="net of Monday", progress=lambda p: pytest.fail(p.part),
        **OPTIONS,
    )  # fmt: skip
    with pytest.raises(DataError, match=r"identity= .* net of Monday to net of Tuesday"):
        evaluate(net, source, out, identity="net of Tuesday", **OPTIONS)
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with pytest.raises(DataError, match=r"the model .* is another one"):  # the weights tell
        evaluate(other, source, out, identity="net of Monday", names=[type(net).__name__],
                 **OPTIONS)  # fmt: skip


def test_an_identity_is_a_string(demo_classifier: material.Model, source: Path) -> None:
    for wrong in ("", 7, b"x"):
        with pytest.raises(DataError, match="identity: expected a string that is not empty"):
            evaluate(demo_classifier.path, source, identity=wrong, **OPTIONS)


class Own(Ascent):
    """An attack from outside jataug."""


@pytest.fixture
def own_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    presets = suite.ATTACKS["pgd"][1]
    monkeypatch.setitem(suite.ATTACKS, "own", (Own, presets))  # type: ignore[arg-type]


@pytest.fixture
def own_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {key: dict(entry) for key, entry in table._RULES.items()}
    monkeypatch.setattr(table, "_RULES", rules)

    @table.rule("Relu", "X")
    def relu(g: Any, Y: Any, X: Any) -> Any:
        return g


@pytest.mark.parametrize(
    ("fixture", "options"),
    [("own_attack", {"attacks": ("own:steps=2",)}), ("own_rule", {})],
)
def test_code_of_one_s_own_needs_an_identity_too(
    demo_classifier: material.Model,
    source: Path,
    tmp_path: Path,
    fixture: str,
    options: dict[str, Any],
    request: pytest.FixtureRequest,
) -> None:
    request.getfixturevalue(fixture)
    given, model = {**OPTIONS, **options}, demo_classifier.path
    evaluate(model, source, tmp_path / "out", **given)
    with pytest.raises(DataError, match="identity="):
        evaluate(model, source, tmp_path / "out", **given)
    evaluate(model, source, tmp_path / "named", identity="1", **given)
    evaluate(
        model, source, tmp_path / "named", identity="1", progress=lambda p: pytest.fail(p.part),
        **given,
    )  # fmt: skip


class Anonymous(Source):
    """A source that does not say what it is."""

    labelled = True

    def __init__(self, inner: Source, said: dict[str, Any]) -> None:
        self._inner, self._said = inner, said

    def __len__(self) -> int:
        return len(self._inner)

    def key(self, index: int) -> str:
        return self._inner.key(index)

    def label(self, index: int) -> int | None:
        return self._inner.label(index)

    def where(self, index: int) -> str:
        return self._inner.where(index)

    def read(self, index: int) -> Any:
        return self._inner.read(index)

    def describe(self, *, content: bool = False) -> dict[str, Any]:
        return self._said


@pytest.mark.parametrize(
    "said", [{}, {"kind": "mine", "count": 24}, {"kind": "mine", "count": 24, "fingerprint": ""}]
)
def test_a_source_without_a_fingerprint_is_refused(
    demo_classifier: material.Model, source: Path, tmp_path: Path, said: dict[str, Any]
) -> None:
    held = Anonymous(open_source(source), said)
    with pytest.raises(DataError, match=r"Anonymous.describe\(\): expected (kind|fingerp)"):
        evaluate(demo_classifier.path, held, tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()
