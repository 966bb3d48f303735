"""Models that no runtime could run: one line that says what is wrong, never a defect."""

import os
from pathlib import Path

import onnx
import pytest
from commands import refused
from onnx import TensorProto, helper

import jataug

DEMO = Path(jataug.__file__).parent / "demo"


def edit(**changes):
    """Return what spoils the shipped classifier: its Conv, a weight of it, or the image."""

    def build(path):
        model = onnx.load(DEMO / "classifier.onnx")
        conv = next(node for node in model.graph.node if node.op_type == "Conv")
        weight = next(t for t in model.graph.initializer if t.name == conv.input[1])
        if "attribute" in changes:
            name, value = changes["attribute"]
            kept = [a for a in conv.attribute if a.name != name]
            del conv.attribute[:]
            conv.attribute.extend([*kept, helper.make_attribute(name, value)])
        if "dims" in changes:
            del weight.dims[:]
            weight.dims.extend(changes["dims"])
        if "data_type" in changes:
            weight.data_type = changes["data_type"]
        if "op_type" in changes:
            conv.op_type = changes["op_type"]
        if "image" in changes:
            for dim, size in zip(
                model.graph.input[0].type.tensor_type.shape.dim, changes["image"], strict=True
            ):
                dim.dim_value = size
        if "data_file" in changes:
            weight.ClearField("raw_data")
            weight.data_location = TensorProto.EXTERNAL
            for key, value in changes["data_file"].items():
                weight.external_data.add(key=key, value=value)
        path.write_bytes(model.SerializeToString())
        return path

    return build


def recursive_function(path):
    model = onnx.load(DEMO / "classifier.onnx")
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = "Endless", "local"
    inner, opset = helper.make_node("Endless", ["x"], ["y"], domain="local"), [("local", 1)]
    opsets = [helper.make_opsetid(*entry) for entry in opset]
    function = helper.make_function("local", "Endless", ["x"], ["y"], [inner], opsets)
    model.functions.append(function)
    model.opset_import.extend(opsets)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("command", ["export", "differentiate"])
def test_a_destination_that_is_no_file_is_not_replaced(run, tmp_path, command):
    """A model written to /dev/null by root would take its place."""
    os.mkfifo(tmp_path / "pipe")
    result = run(command, DEMO / "classifier.onnx", "-o", tmp_path / "pipe")
    refused(result, "pipe is a device or a pipe")
    assert (tmp_path / "pipe").is_fifo()


def no_output(path):
    model = onnx.load(DEMO / "classifier.onnx")
    del model.graph.output[:]
    path.write_bytes(model.SerializeToString())
    return path


INVALID = {
    "group 0": (edit(attribute=("group", 0)), "ONNXRuntimeError"),
    "group 7": (edit(attribute=("group", 7)), "ONNXRuntimeError"),
    "group -1": (edit(attribute=("group", -1)), "ONNXRuntimeError"),
    "kernel": (edit(attribute=("kernel_shape", [5, 5])), "ONNXRuntimeError"),
    "dilations": (edit(attribute=("dilations", [100, 100])), ""),
    "pads": (edit(attribute=("pads", [10**9] * 4)), "ONNXRuntimeError"),
    "weight of no entries": (edit(dims=[16, 1, 0, 0]), "not valid"),
    "weight of another rank": (edit(dims=[16, 9]), ""),
    "weight of too many entries": (edit(dims=[2**40, 1, 3, 3]), "not valid"),
    "weight without a type": (edit(data_type=0), "not valid"),
    "weight of another type": (edit(data_type=TensorProto.DOUBLE), "not valid"),
    "weight of no known type": (edit(data_type=99), "not valid"),
    "op that wants more": (edit(op_type="LSTM"), "not valid"),
    "op without its graph": (edit(op_type="Scan"), "not valid"),
    "channels": (edit(image=[2, 3, 28, 28]), "ONNXRuntimeError"),
    "huge image": (edit(image=[1, 1, 2**40, 2**40]), "too large"),
    "huge batch": (edit(image=[2**31, 1, 28, 28]), "too large"),
    "no data file": (edit(data_file={}), "names no data file"),
    "data file, no number": (edit(data_file={"location": "a", "offset": "x"}), "data file"),
    "data file, below 0": (edit(data_file={"location": "a", "offset": "-5"}), "data file"),
    "recursive function": (recursive_function, "not valid"),
    "no output": (no_output, "no output"),
}


@pytest.mark.parametrize(("build", "words"), INVALID.values(), ids=INVALID)
def test_an_invalid_model_is_no_defect(run, images, tmp_path, build, words):
    model, out = build(tmp_path / "model.onnx"), tmp_path / "out"
    result = run("inspect", model)
    assert "unexpected:" not in result.output, result.output
    few = ("--attacks", "fgsm", "--no-curves", "--no-sanity", "--limit", "2", "--device", "cpu")
    for command in (
        ("export", model, "-o", out), ("differentiate", model, "-o", out),
        ("evaluate", model, images, "-o", out, *few),
    ):  # fmt: skip
        result = run(*command)
        refused(result, words)
        assert "unexpected:" not in result.output, result.output
    assert not (out / "report.json").exists()
