"""A head that hides the gradient: taken off, refused, or called suspect; and labels that are the
model's own predictions, whose clean row is no accuracy.
"""

from pathlib import Path
from typing import Any

import material
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import helper, numpy_helper

from jataug.cli import main
from jataug.errors import ModelError
from jataug.evaluation import evaluate
from jataug.evaluation.report.html import html_page
from jataug.evaluation.report.markdown import markdown
from jataug.preprocessing import Preprocessing

HEADS = {"bare": (), "Softmax": ("Softmax",), "Softmax of Sigmoid": ("Sigmoid", "Softmax")}
QUICK: dict[str, Any] = {"attacks": ["fgsm", "pgd"], "curves": False, "device": "cpu"}


@pytest.fixture(scope="session")
def headed(demo_classifier: material.Model, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The shipped classifier, surer of itself than it was, behind each head."""
    folder = tmp_path_factory.mktemp("heads")
    for name, head in HEADS.items():
        proto = onnx.load(demo_classifier.path)
        output = proto.graph.output[0].name
        for node in proto.graph.node:
            node.output[:] = ["inner" if v == output else v for v in node.output]
        factor = numpy_helper.from_array(np.array(4, np.float32), "factor")
        proto.graph.initializer.append(factor)
        names = ["hot", *(f"h{i}" for i in range(len(head)))]
        names[-1] = output
        proto.graph.node.append(helper.make_node("Mul", ["inner", "factor"], names[:1]))
        for before, after, op in zip(names, names[1:], head, strict=False):
            proto.graph.node.append(helper.make_node(op, [before], [after], name=f"the {op}"))
        onnx.save(proto, folder / f"{name}.onnx")
    return {name: folder / f"{name}.onnx" for name in HEADS}


@pytest.mark.parametrize("name", ["Softmax", "Softmax of Sigmoid"])
def test_without_a_word_it_is_refused_with_both_flags(name: str, headed: Any, source: Path) -> None:
    with pytest.raises(ModelError, match=r"Softmax.*--outputs probabilities.*--outputs logits"):
        evaluate(headed[name], source, **QUICK)
    said = CliRunner().invoke(main, ["export", str(headed[name]), "-o", "never.onnx"])
    assert said.exit_code == 2
    assert "--outputs probabilities" in said.output
    assert len(said.output.splitlines()) == 1
    assert not Path("never.onnx").exists()


def test_inspect_and_generate_say_what_was_attacked(
    headed: Any, source: Path, tmp_path: Path
) -> None:
    def run(*words: object) -> str:
        said = CliRunner().invoke(main, [str(word) for word in words])
        assert said.exit_code == 0, said.output
        return said.output

    model, options = headed["Softmax of Sigmoid"], ("--steps", "1", "--outputs")
    assert "can be attacked  no" in run("inspect", model)
    told = run("inspect", model, "--outputs", "probabilities")
    assert "can be attacked  yes" in told
    assert "before Softmax (node 'the Softmax'), Sigmoid (node 'the Sigmoid')" in told
    run("export", model, "-o", tmp_path / "a.onnx", *options, "probabilities")
    assert "the values before Softmax (node 'the Softmax'), " in run("inspect", tmp_path / "a.onnx")
    run("export", model, "-o", tmp_path / "b.onnx", *options, "logits", "--no-check")
    assert "made by Softmax" in run("inspect", tmp_path / "b.onnx")
    for name, warned in (("a", False), ("b", True)):
        told = run("generate", tmp_path / f"{name}.onnx", source, tmp_path / name, "--limit", "4")
        assert ("Warning" in told and "Softmax" in told) == warned


@pytest.mark.parametrize("name", ["Softmax", "Softmax of Sigmoid"])
def test_taken_off_it_hides_nothing(name: str, headed: Any, source: Path) -> None:
    how = Preprocessing(outputs="probabilities")
    bare = evaluate(headed["bare"], source, sanity=False, **QUICK).models[0]
    found = evaluate(headed[name], source, preprocessing=how, sanity=False, **QUICK).models[0]
    insisted = evaluate(
        headed[name], source, preprocessing=Preprocessing(outputs="logits"), **QUICK
    ).models[0]
    worst = [m.attacks[-1].accuracy.correct for m in (bare, found, insisted)]
    # Where two classes are 1 behind a Sigmoid, the deployed model says the first: these may stand.
    assert worst[1] <= worst[0] + 2 * (name != "Softmax")
    assert worst[2] > worst[1]
    assert insisted.sanity.verdict == "suspect"
    check = insisted.sanity.checks[0]
    assert (check.name, check.verdict) == ("head", "fail")
    assert "Softmax" in check.detail
    assert any("head" in warning for warning in insisted.warnings)


def test_a_torch_module_that_returns_probabilities_is_suspect(
    demo_classifier: material.Model, source: Path
) -> None:
    module = torch.nn.Sequential(demo_classifier.module, torch.nn.Softmax(1))
    found = evaluate(module, source, **QUICK).models[0]
    assert found.sanity.checks[0].name == "head"
    assert found.sanity.verdict == "suspect"
    plain = evaluate(demo_classifier.module, source, **QUICK).models[0]
    assert all(check.name != "head" for check in plain.sanity.checks)


def test_predicted_labels_are_called_self_consistency(
    headed: Any, source: Path, tmp_path: Path
) -> None:
    report = evaluate(headed["bare"], source, labels="predicted", sanity=False, **QUICK)
    words = "self-consistency, not accuracy"
    assert any(words in w and "--mean" in w for w in report.models[0].warnings)
    assert f"| clean | {words} |" in markdown(report)
    page = html_page(report)
    assert f"clean ({words})" in page
    assert "clean accuracy" not in page
    options = ["--attacks", "fgsm", "--no-curves", "--no-sanity", "--device", "cpu", "--labels"]
    for labels in ("predicted", "source"):
        out = tmp_path / labels
        said = CliRunner().invoke(
            main,
            ["evaluate", str(headed["bare"]), str(source), "-o", str(out), *options, labels],
        )
        assert said.exit_code == 0, said.output
        (line,) = (line for line in said.output.splitlines() if line.startswith("  clean"))
        assert (words in line) == (labels == "predicted")
        assert max(map(len, said.output.splitlines()[:6])) <= 80
    source_page = html_page(evaluate(headed["bare"], source, sanity=False, **QUICK))
    assert words not in source_page
