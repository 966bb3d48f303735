"""What stands between the logits and the output: taken off where it keeps the order of the classes,
refused or called suspect where it hides the gradient.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from jataug import generate
from jataug.artifact import hiding_head, load_artifact
from jataug.config import AttackConfig
from jataug.errors import JataugError, ModelError
from jataug.export import differentiate, export_attack, rule
from jataug.export.gradient.predict import predictor
from jataug.export.model.head import Head
from jataug.export.preflight import survey
from jataug.export.rules import table
from jataug.preprocessing import Preprocessing
from jataug.runtime import Session

from .checking import on_runtime
from .files import WEIGHTS, body, classifier, gradient, ints, model, node

IMAGES = np.random.default_rng(0).random((6, 3, 8, 8), np.float32)
PROBABLE = Preprocessing(outputs="probabilities")
EXTRA = {
    "half": np.array(0.5, np.float32),
    "cold": np.array([[0.01]], np.float32),
    "one": ints(1),
    "zeroth": ints(0),
    "low": np.array(1e-7, np.float32),
    "high": np.array(1 - 1e-7, np.float32),
    "axes": ints(2, 3),
    "rows": ints(-1, 5),
    "each": np.array([[1, 2, 3, 4, 5]], np.float32),
    "minus": np.array(-1.0, np.float32),
    "last": ints(-1),
    "scale": WEIGHTS["scale"],
    "level": np.array(1 / 256, np.float32),
    "zero": np.array(0, np.uint8),
}


def headed(*tail, hot=1.0, **options):
    """A classifier whose logits are "z", with a head that makes "y"."""
    weights = {**EXTRA, "v": WEIGHTS["v"] * np.float32(hot)}
    return model([*body(last="z"), *tail], weights, opset=18, **options)


def bare(hot=1.0):
    weights = {"v": WEIGHTS["v"] * np.float32(hot)}
    return model(body(), weights, opset=18)


KEPT = {
    "Softmax": [node("Softmax", "z", "y")],
    "Softmax by hand": [
        node("ReduceMax", "z one", "most"),
        node("Sub", "z most", "below"),
        node("Exp", "below", "e"),
        node("ReduceSum", "e one", "total"),
        node("Div", "e total", "y"),
    ],
    "Log of Softmax": [node("Softmax", "z", "q"), node("Log", "q", "y")],
    "LogSoftmax": [node("LogSoftmax", "z", "y")],
    "Softmax with a temperature": [node("Mul", "cold z", "t"), node("Softmax", "t", "y")],
    "Softmax of Sigmoid": [node("Sigmoid", "z", "s"), node("Softmax", "s", "y")],
    "Softmax of Softmax": [node("Softmax", "z", "s"), node("Softmax", "s", "y")],
    "Softmax of Tanh, scaled": [
        node("Tanh", "z", "s"), node("Div", "s half", "d"), node("Softmax", "d", "y")
    ],
    "Sigmoid": [node("Sigmoid", "z", "y")],
    "Sigmoid over its sum": [
        node("Sigmoid", "z", "s"), node("ReduceSum", "s one", "total"), node("Div", "s total", "y")
    ],
    "Log of Sigmoid": [node("Sigmoid", "z", "s"), node("Log", "s", "y")],
    "Softplus": [node("Softplus", "z", "y")],
    "Softplus, one more": [node("Softplus", "z", "s"), node("Add", "half s", "y")],
    "Erf, Atan, Softsign, Elu": [
        node("Elu", "z", "h1"), node("Softsign", "h1", "h2"), node("Atan", "h2", "h3"),
        node("Erf", "h3", "y"),
    ],
    "clipped Softmax": [node("Softmax", "z", "q"), node("Clip", "q low high", "y")],
    "HardSigmoid": [node("HardSigmoid", "z", "y")],
    "rounded Sigmoid": [node("Sigmoid", "z", "q"), node("Round", "q", "y")],
    "quantised Softmax": [
        node("Softmax", "z", "q"), node("QuantizeLinear", "q level zero", "i"),
        node("DequantizeLinear", "i level zero", "y"),
    ],
    "Cast, Reshape, Squeeze": [
        node("Softmax", "z", "q"), node("Cast", "q", "h", to=TensorProto.FLOAT16),
        node("Cast", "h", "f2", to=TensorProto.FLOAT), node("Unsqueeze", "f2 axes", "u2"),
        node("Squeeze", "u2 axes", "s"), node("Reshape", "s rows", "y"),
    ],
    "Softmax of (N, K, 1, 1)": [
        node("Unsqueeze", "z axes", "q"), node("Softmax", "q", "y", axis=1)
    ],
    "Pow of Softmax": [node("Softmax", "z", "q"), node("Pow", "q half", "y")],
    "normalised": [node("Softmax", "z", "q"), node("LpNormalization", "q", "y", axis=-1)],
}  # fmt: skip


@pytest.mark.parametrize("head", KEPT)
def test_a_head_that_keeps_the_order_is_taken_off(head):
    plain = predictor(bare(), device="cpu")(IMAGES)
    found = predictor(headed(*KEPT[head]), PROBABLE, device="cpu")(IMAGES)
    if head not in ("rounded Sigmoid", "HardSigmoid", "quantised Softmax"):  # which tie these
        np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hot", [1.0, 100.0])
@pytest.mark.parametrize("head", KEPT)
def test_the_prediction_is_that_of_the_deployed_model(head, hot, tmp_path):
    """Behind a saturated head several classes are 1: the deployed model says the first of them."""
    proto = headed(*KEPT[head], hot=hot)
    (deployed,) = on_runtime(proto, {"x": IMAGES})
    said = deployed.reshape(len(IMAGES), 5).argmax(1)
    found = predictor(proto, PROBABLE, device="cpu")(IMAGES)
    np.testing.assert_array_equal(found.argmax(1), said)
    assert np.isfinite(found).all()


def test_classes_do_tie_there():
    (deployed,) = on_runtime(headed(*KEPT["Sigmoid"], hot=100.0), {"x": IMAGES})
    (logits,) = on_runtime(bare(100.0), {"x": IMAGES})
    assert (deployed.argmax(1) != logits.argmax(1)).any()


NOT_KEPT = {
    "a scale per class": [node("Mul", "z each", "t"), node("Softmax", "t", "y")],
    "a negative scale": [node("Mul", "z minus", "t"), node("Softmax", "t", "y")],
    "a difference from a constant": [node("Sub", "half z", "t"), node("Softmax", "t", "y")],
    "Cos": [node("Cos", "z", "t"), node("Softmax", "t", "y")],
}  # fmt: skip


@pytest.mark.parametrize("head", NOT_KEPT)
def test_what_changes_the_order_stays(head):
    tail = NOT_KEPT[head]
    network = classifier(headed(*tail), outputs="probabilities")
    assert network.logits.name == tail[-1].input[0]
    assert len(network.head.taken_off) == 1


BEHIND = [node("Sigmoid", "z", "s"), node("Mul", "s each", "t"), node("Softmax", "t", "y")]


def test_what_hides_behind_a_number_per_class_is_refused():
    for outputs in ("probabilities", None):
        with pytest.raises(ModelError, match=r"(Sigmoid|Softmax) .*--outputs logits"):
            classifier(headed(*BEHIND), outputs=outputs)
    with pytest.raises(ModelError, match=r"Sigmoid \(node.*--logits z"):
        classifier(headed(*BEHIND[:-1], node("Identity", "t", "y")))
    assert classifier(headed(*BEHIND), logits="z").head == Head()


def test_a_softmax_over_the_batch_is_not_taken_for_one_over_classes():
    tail = [node("Softmax", "z", "q", axis=0), node("Softmax", "q", "y")]
    with pytest.raises(ModelError, match="cannot be taken off"):
        classifier(headed(*tail), outputs="probabilities")


HIDING = sorted(set(KEPT) - {"LogSoftmax"})


@pytest.mark.parametrize("head", HIDING)
def test_without_a_word_a_head_that_hides_is_refused(head, tmp_path):
    proto = headed(*KEPT[head])
    with pytest.raises(ModelError) as caught:
        export_attack(proto, AttackConfig.preset("claim-1"), tmp_path / "a.onnx")
    said = str(caught.value)
    assert "--outputs probabilities" in said
    assert "--outputs logits" in said
    assert "\n" not in said
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize("head", HIDING)
def test_insisted_on_it_stays_and_is_remembered(head):
    network = classifier(headed(*KEPT[head]), outputs="logits")
    assert network.head.hides is not None
    assert network.head.taken_off == ()


@pytest.mark.parametrize("tail", [
    [node("LogSoftmax", "z", "y")], [node("Mul", "z half", "y")], [node("Identity", "z", "y")],
    [node("Mul", "z each", "y")], [node("Unsqueeze", "z axes", "y")],
])  # fmt: skip
def test_what_does_not_hide_needs_no_word(tail):
    assert classifier(headed(*tail)).head == Head()


def test_an_attack_on_a_headed_model_is_that_on_its_logits(tmp_path):
    config = AttackConfig.preset("evaluation", steps=3)
    found = {}
    for name, proto, how in (
        ("bare", bare(3.0), None),
        ("headed", headed(*KEPT["Softmax of Sigmoid"], hot=3.0), PROBABLE),
    ):
        path = tmp_path / f"{name}.onnx"
        manifest = export_attack(proto, config, path, preprocessing=how)
        assert manifest.preprocessing.outputs == ("probabilities" if how else "logits")
        with Session.open(path, device="cpu") as session:
            found[name] = session.attack(IMAGES, [0] * 6).flow
    np.testing.assert_allclose(found["bare"], found["headed"], atol=1e-3)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_heads_in_16_bits(precision, tmp_path):
    proto = headed(*KEPT["Softmax of Sigmoid"])
    manifest = export_attack(
        proto, AttackConfig.preset("claim-1"), tmp_path / "a.onnx", preprocessing=PROBABLE,
        precision=precision, check=precision == "float16",
    )  # fmt: skip
    assert manifest.precision == precision


@pytest.mark.parametrize("form", ["step", "loop", "unrolled"])
def test_the_artifact_says_what_was_taken_off(form, tmp_path):
    proto, config = headed(*KEPT["Softmax of Sigmoid"]), AttackConfig.preset("claim-1", steps=2)
    export_attack(proto, config, tmp_path / "a.onnx", preprocessing=PROBABLE, form=form)
    artifact, _ = load_artifact(tmp_path / "a.onnx")
    (logits,) = (v for v in artifact.graph.output if v.name == "logits")
    assert "Softmax" in logits.doc_string
    assert "Sigmoid" in logits.doc_string


LABELS = {
    "ArgMax": [node("ArgMax", "z", "y", axis=1)],
    "ArgMax, Squeeze": [node("ArgMax", "z", "a", axis=1), node("Squeeze", "a one", "y")],
    "ArgMax as float": [
        node("ArgMax", "z", "a", axis=1, keepdims=0), node("Cast", "a", "y", to=TensorProto.FLOAT)
    ],
    "TopK": [node("TopK", "z one", "values y", axis=1)],
}  # fmt: skip


@pytest.mark.parametrize("kind", LABELS)
def test_labels_alone_name_the_logits(kind):
    proto = headed(*LABELS[kind])
    with pytest.raises(ModelError, match=r"(ArgMax|TopK) \(node.*--logits z"):
        classifier(proto)
    assert classifier(proto, logits="z").logits_shape == ("N", 5)


def classical(*, opset=True):
    """What skl2onnx makes of an MLPClassifier: labels, and a list of maps."""
    tail = [
        node("Softmax", "z", "q", name="prob"),
        node("ArgMax", "q", "best", axis=1, keepdims=0),
        node("ArrayFeatureExtractor", "names best", "label", name="pick", domain="ai.onnx.ml"),
        node("ZipMap", "q", "maps", name="zip", domain="ai.onnx.ml", classlabels_int64s=range(5)),
    ]
    proto = headed(*tail, outputs=("label", "maps"), domains=[("ai.onnx.ml", 1)])
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    kind = proto.graph.output[1].type.sequence_type.elem_type.map_type
    kind.key_type, kind.value_type.tensor_type.elem_type = TensorProto.INT64, TensorProto.FLOAT
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(5)[None], "names"))
    return proto


@pytest.mark.parametrize("logits", [None, "maps"])
def test_a_zipmap_is_named_with_the_way_around_it(logits):
    with pytest.raises(ModelError, match=r"ZipMap \(node 'zip', domain ai.onnx.ml\).*--logits q"):
        classifier(classical(), logits=logits)
    assert classifier(classical(), logits="z").logits_shape == ("N", 5)
    assert classifier(classical(), logits="q", outputs="probabilities").logits_shape == ("N", 5)
    with pytest.raises(ModelError, match=r"ArrayFeatureExtractor \(node 'pick', domain ai.onnx.ml"):
        classifier(classical(), logits="label")


@pytest.mark.parametrize("logits", [None, "label", "probabilities", "probability_tensor"])
@pytest.mark.parametrize("opset", [None, 15])
def test_a_classical_model_of_onnxruntime_is_refused_in_one_line(logits, opset):
    proto = onnx.load(Path(onnxruntime.__file__).parent / "datasets" / "logreg_iris.onnx")
    if opset:
        proto.opset_import.append(helper.make_opsetid("", opset))
    with pytest.raises(ModelError, match=r"\(node '\w+', domain ai.onnx.ml\).*hummingbird") as told:
        classifier(proto, logits=logits)
    assert "\n" not in str(told.value)


def test_a_flat_operator_may_be_given_a_derivative(monkeypatch):
    """The cure that the message names: a straight-through estimate for Sign."""
    monkeypatch.setattr(table, "_RULES", {key: dict(r) for key, r in table._RULES.items()})
    before = set(table.FLAT)
    proto = model([node("Sign", "x", "signs"), *moved(body(), "x", "signs")], EXTRA)
    try:
        with pytest.raises(ModelError, match=r"is 0 everywhere: Sign"):
            differentiate(proto)

        @rule("Sign", "input")
        def straight(g, Y, input):
            return g

        assert gradient(proto).any()
    finally:
        table.FLAT.update(before)


def moved(nodes, old, new):
    for one in nodes:
        one.input[:] = [new if name == old else name for name in one.input]
    return nodes


INSPECTED = {
    "fine": lambda: bare(),
    "Softmax": lambda: headed(*KEPT["Softmax"]),
    "label": lambda: headed(*LABELS["ArgMax"]),
    "behind": lambda: headed(*BEHIND),
    "flat": lambda: headed(node("Floor", "z", "t"), node("Mul", "t each", "y")),
    "maps": classical,
    "no rule": lambda: headed(node("Bernoulli", "z", "d"), node("Add", "z d", "y")),
    "not finite": lambda: headed(node("Neg", "z", "n2"), node("Exp", "n2", "e"),
                                 node("Mul", "e e", "e2"), node("Log", "minus", "n3"),
                                 node("Add", "e2 n3", "y")),
    "images mix": lambda: headed(
        node("ReduceMean", "z zeroth", "m2", keepdims=1), node("Mul", "z m2", "y")
    ),
    "two channels": lambda: model(image=["batch", 2, 8, 8]),
    "integers": lambda: headed(node("Cast", "z", "y", to=TensorProto.INT32)),
    "one class": lambda: headed(node("ReduceMax", "z one", "y", keepdims=1)),
}  # fmt: skip


@pytest.mark.parametrize("kind", INSPECTED)
def test_inspect_says_what_export_says(kind, tmp_path):
    try:
        export_attack(INSPECTED[kind](), AttackConfig.preset("claim-1"), tmp_path / "a.onnx")
        refused = None
    except JataugError as error:
        refused = str(error)
    problems = survey(INSPECTED[kind]()).problems
    assert (refused is None) == (kind == "fine")
    assert problems == (() if refused is None else (refused,)) or "no derivative" in problems[0]
    assert bool(problems) == (refused is not None)


def test_an_artifact_of_before_says_that_it_is_undetermined(tmp_path):
    """Version 0.1 took the probabilities for logits where nothing was said."""
    config = AttackConfig.preset("claim-1", steps=2)
    for form in ("step", "loop", "unrolled"):
        for outputs in ("logits", "probabilities"):
            path = tmp_path / f"{form}-{outputs}.onnx"
            export_attack(
                headed(*KEPT["Softmax"]), config, path,
                preprocessing=Preprocessing(outputs=outputs), form=form,
            )  # fmt: skip
            artifact, _ = load_artifact(path)
            found = hiding_head(artifact)
            assert (found is not None) == (outputs == "logits")
            with Session.open(path, device="cpu") as session:
                assert session.warnings == (() if found is None else (found,))
    found = generate_report(tmp_path / "step-logits.onnx", tmp_path / "out")
    assert any("Softmax" in line and "--outputs probabilities" in line for line in found.warnings)
    assert generate_report(tmp_path / "step-probabilities.onnx", tmp_path / "other").warnings == ()


def generate_report(path, out):
    images = (IMAGES.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    source = out.with_suffix(".npz")
    np.savez(source, images=images, labels=np.arange(6) % 5)
    return generate(path, source, out, labels="predicted", batch_size=3, device="cpu")


def test_a_fixed_batch_is_freed_behind_a_head(tmp_path):
    """What the two batch sizes are compared by lies before the head."""
    proto = headed(*KEPT["Softmax of Sigmoid"], batch=2)
    network = classifier(proto, outputs="probabilities")
    assert network.logits_shape == ("N", 5)
    assert network.head.inner == "z"
