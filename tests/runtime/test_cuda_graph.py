"""Recording an iteration as a CUDA graph: what ONNX Runtime is asked for.

No GPU takes part: a double stands between the engine and ONNX Runtime, which says that CUDA loaded,
writes down what it was given, and runs on the CPU.
"""

import numpy as np
import onnx
import onnxruntime
import pytest

from jataug import ModelError, RuntimeUnavailable, Session
from jataug.runtime.onnxruntime import Engine

from .sessions import CONFIG, images

CUDA = "CUDAExecutionProvider"


class Card:
    """What the double was asked for."""

    def __init__(self):
        self.options, self.runs, self.refusal = [], [], None


@pytest.fixture
def card(monkeypatch):
    found, real = Card(), onnxruntime.InferenceSession

    class Session(real):
        def __init__(self, content, options, providers):
            self.on_card = any(CUDA in p for p in providers)
            if self.on_card:
                found.options.append(dict(providers[:1])[CUDA])
                if found.refusal and found.options[-1]["enable_cuda_graph"]:
                    raise RuntimeError(found.refusal)
            super().__init__(content, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return [*([CUDA] if self.on_card else []), "CPUExecutionProvider"]

        def run(self, names, feeds, options=None):
            found.runs.append(graph_of(options))
            return super().run(names, feeds, options)

        def run_with_iobinding(self, binding, options=None):
            found.runs.append(graph_of(options))
            return super().run_with_iobinding(binding, options)

    on_host = onnxruntime.OrtValue.ortvalue_from_shape_and_type
    monkeypatch.setattr(
        onnxruntime.OrtValue,
        "ortvalue_from_shape_and_type",
        staticmethod(lambda shape, kind, device, number: on_host(shape, kind)),
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"]
    )
    return found


def graph_of(options):
    return None if options is None else options.get_run_config_entry("gpu_graph_id")


def attacked(path, **options):
    with Session.open(path, **options) as session:
        first = session.attack(images(4), np.arange(4) % 3)
        again = session.attack(images(4), np.arange(4) % 3)
    np.testing.assert_array_equal(first.adversarial, again.adversarial)
    return first


def test_each_direction_of_the_state_is_a_graph_of_its_own(card, path):
    """The state goes back and forth between two sets of buffers; a graph holds one direction."""
    plain = attacked(path, device="cpu", batch_size=4)
    card.runs.clear()
    found = attacked(path, device="cuda", batch_size=4, cuda_graph=True)
    np.testing.assert_array_equal(found.adversarial, plain.adversarial)
    assert [o["enable_cuda_graph"] for o in card.options] == [0, 1]  # measuring; the steps
    recorded = [run for run in card.runs if run is not None]
    assert recorded[: CONFIG.steps] == ["1", "2", "1"]
    assert set(recorded) == {"1", "2"}
    assert None in card.runs  # measuring: new addresses every time


def test_nothing_is_recorded_unless_it_is_asked_for(card, path):
    attacked(path, device="cuda", batch_size=4)
    assert [o["enable_cuda_graph"] for o in card.options] == [0, 0]
    assert set(card.runs) == {None}


def test_a_run_at_new_addresses_is_not_recorded(card, tiny_net):
    model = onnx.load(tiny_net.path)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    engine = Engine(model, {batch: 2}, "cuda", capture=True)
    engine.run({engine.inputs[0]: images(2)})
    assert card.runs == ["-1"]


def test_numbers_of_float32_are_not_shortened(card, path):
    attacked(path, device="cuda:0", batch_size=4)
    assert [o["use_tf32"] for o in card.options] == [0, 0]
    assert [o["device_id"] for o in card.options] == [0, 0]


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_a_node_that_is_not_on_the_card(card, path, device):
    card.refusal = "This session cannot use the graph capture feature as requested\nand more"
    session = Session.open(path, device=device, batch_size=4, cuda_graph=True)
    with pytest.raises(RuntimeUnavailable, match=r"cannot be recorded .*open it without") as error:
        session.attack(images(4), np.arange(4) % 3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"device": "cpu"},
            "cuda_graph needs the backend onnxruntime and a CUDA device, .* on 'cpu'",
        ),
        ({"backend": "openvino"}, "cuda_graph needs the backend onnxruntime .*'openvino'"),
    ],
)
def test_where_there_is_no_card(path, options, message):
    with pytest.raises(RuntimeUnavailable, match=message):
        Session.open(path, cuda_graph=True, **options)


@pytest.mark.skipif(
    CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime has CUDA"
)
def test_an_onnxruntime_without_cuda(path):
    session = Session.open(path, cuda_graph=True)
    with pytest.raises(RuntimeUnavailable, match="cuda_graph needs a CUDA device"):
        session.attack(images(2), np.arange(2) % 3)


def test_a_loop_cannot_be_recorded(card, tiny_net, exported_attack):
    path = exported_attack(tiny_net.path, CONFIG, form="loop")
    with pytest.raises(RuntimeUnavailable, match=r"form loop .*export it with --form step"):
        Session.open(path, device="cuda", cuda_graph=True)


def test_auto_says_in_one_line_what_neither_cuda_nor_the_cpu_takes(card):
    """The retry on the CPU refuses as the first try does."""
    card.refusal = "no kernel for it"
    node = onnx.helper.make_node("Unheard", ["x"], ["y"], name="it")
    ends = [onnx.helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "net", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 9
    with pytest.raises(ModelError, match="onnxruntime lacks the operator Unheard") as caught:
        Engine(model, {}, "auto")
    assert "\n" not in str(caught.value)
