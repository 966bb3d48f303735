"""Weights and their files: one small classifier in many forms, its gradient always the same."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from jataug.errors import ModelError
from jataug.export import differentiate
from jataug.export.model.load import load_model

from .checking import on_runtime
from .files import EXPECTED, IMAGE, SEED, check, model

# Weights


def test_the_gradient_is_that_of_differences():
    def loss(image):
        return (on_runtime(model(), {"x": image})[0].astype(np.float64) * SEED).sum()

    direction = EXPECTED / np.linalg.norm(EXPECTED)
    step = 1e-3 * direction
    slope = (loss(IMAGE + step) - loss(IMAGE - step)) / 2e-3
    assert slope == pytest.approx(np.linalg.norm(EXPECTED), rel=1e-3)


def as_constant_nodes(proto):
    for tensor in list(proto.graph.initializer):
        constant = helper.make_node("Constant", [], [tensor.name], value=tensor)
        proto.graph.node.insert(0, constant)
    del proto.graph.initializer[:]
    return proto


def test_weights_in_constant_nodes():
    check(as_constant_nodes(model()))


def test_weights_in_sparse_constant_nodes():
    proto = model()
    sparse = sparse_tensor(proto, "u")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["u"], sparse_value=sparse))
    check(proto)


def sparse_tensor(proto, name):
    (tensor,) = (t for t in proto.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor)
    proto.graph.initializer.remove(tensor)
    places = np.arange(array.size, dtype=np.int64)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(array.ravel(), name),
        numpy_helper.from_array(places, f"{name}_places"),
        list(array.shape),
    )


def test_sparse_initializers():
    proto = model()
    for name in ("u", "v"):
        proto.graph.sparse_initializer.append(sparse_tensor(proto, name))
    check(proto)


def test_initializers_that_are_inputs_too():
    proto = model(opset=7, ir_version=3)
    for tensor in proto.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(info)
    check(proto)


# External data


def saved(folder, **options):
    path = folder / "model.onnx"
    onnx.save(model(), path, save_as_external_data=True, size_threshold=0, **options)
    return path


@pytest.mark.parametrize(
    "options", [{"location": "weights.bin"}, {"all_tensors_to_one_file": False}]
)
def test_weights_in_the_models_own_folder(tmp_path, options):
    path = saved(tmp_path, **options)
    assert len(list(tmp_path.iterdir())) > 1
    check(path)


def pointed(path, location):
    """Let the first weight's data be found at `location`."""
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/passwd", "sub/../../weights.bin", "C:\\weights.bin"]
)
def test_weights_outside_the_models_folder_are_refused(tmp_path, location):
    (tmp_path / "inner").mkdir()
    path = pointed(saved(tmp_path / "inner", location="weights.bin"), location)
    (tmp_path / "weights.bin").write_bytes((tmp_path / "inner" / "weights.bin").read_bytes())
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_model(path)


def test_weights_in_no_file_are_refused(tmp_path):
    with pytest.raises(ModelError, match="names no data file"):
        load_model(pointed(saved(tmp_path, location="weights.bin"), ""))


def test_a_link_that_leaves_the_folder_is_refused(tmp_path):
    (tmp_path / "inner").mkdir()
    path = saved(tmp_path / "inner", location="weights.bin")
    (tmp_path / "inner" / "weights.bin").rename(tmp_path / "weights.bin")
    (tmp_path / "inner" / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="a link that leaves"):
        load_model(path)


def test_external_data_that_is_missing_or_short(tmp_path):
    path = saved(tmp_path, location="weights.bin")
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[:100])
    with pytest.raises(ModelError, match="too short"):
        load_model(path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"'weights.bin' does not exist"):
        load_model(path)


def test_external_data_that_was_not_loaded(tmp_path):
    proto = onnx.load(saved(tmp_path, location="weights.bin"), load_external_data=False)
    with pytest.raises(ModelError, match="was not loaded; give the model's path"):
        differentiate(proto)
