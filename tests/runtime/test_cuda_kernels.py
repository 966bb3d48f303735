"""Whether every node of an attack has a kernel of ONNX Runtime's CUDA provider: then none runs on
the CPU, nothing is copied between the two, and the step can be recorded as a CUDA graph.

No GPU takes part. The kernels are those that ONNX Runtime's docs/OperatorKernels.md lists for CUDA;
the graph is what ONNX Runtime makes of the artifact for a batch size, before a provider is chosen.
"""

import material
import numpy as np
import onnx
import onnxruntime
import pytest

from jataug import AttackConfig, FlowBudget, PixelBudget
from jataug.export import export_attack

FLOATS = {"float32", "float16"}
NUMBERS = FLOATS | {"int64"}
ANY = NUMBERS | {"bool"}

KERNELS = {
    **dict.fromkeys(("Concat", "Expand", "Gather", "Reshape", "Slice", "Transpose"), (13, ANY)),
    **dict.fromkeys(("Unsqueeze", "Identity"), (13, ANY)),
    **dict.fromkeys(("Add", "Div", "Max", "Min", "Mul", "Neg", "Sub"), (12, NUMBERS)),
    **dict.fromkeys(("Greater", "GreaterOrEqual", "Less", "LessOrEqual"), (12, NUMBERS)),
    **dict.fromkeys(("ReduceMax", "ReduceSum", "Abs", "Sign"), (13, NUMBERS)),
    **dict.fromkeys(("Conv", "ConvTranspose", "DepthToSpace", "Gemm", "MatMul"), (9, FLOATS)),
    **dict.fromkeys(("Erf", "Exp", "IsNaN", "LogSoftmax", "Softmax", "Sqrt"), (13, FLOATS)),
    **dict.fromkeys(("AveragePool", "MaxPool", "Relu", "HardSigmoid"), (6, FLOATS)),
    **dict.fromkeys(("LayerNormalization", "ReduceMean"), (17, FLOATS)),
    "And": (7, {"bool"}),
    "Cast": (13, ANY),
    "Clip": (13, NUMBERS),
    "Equal": (13, ANY),
    "Pad": (18, FLOATS | {"bool"}),
    "Where": (9, ANY),
}
"""Operator -> the first opset that counts here, and the types of what it computes on."""

MODELS = {
    "demo classifier": material.demo_classifier,
    "ResNet-18": material.resnet18_cifar,
    "EfficientNet-Lite0": material.efficientnet_lite0,
}


def placed(path, batch, folder):
    """Return the graph for one batch size, its shapes folded away, with types of all values."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for name in "NR":
        options.add_free_dimension_override_by_name(name, batch)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "placed.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return onnx.shape_inference.infer_shapes(onnx.load(options.optimized_model_filepath))


def types_of(graph):
    values = (*graph.value_info, *graph.input, *graph.output)
    kinds = {v.name: v.type.tensor_type.elem_type for v in values}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    to_numpy = onnx.helper.tensor_dtype_to_np_dtype
    return {name: np.dtype(to_numpy(kind)).name for name, kind in kinds.items()}


def without_kernel(model):
    """Return the nodes that the CUDA provider has no kernel for, each as its operator and type."""
    types = types_of(model.graph)
    (opset,) = (o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    found = set()
    for node in model.graph.node:
        first, kinds = KERNELS.get(node.op_type, (0, set()))
        kind = types[node.input[1 if node.op_type == "Where" else 0]]
        if node.domain or opset < first or kind not in kinds:
            found.add((node.op_type, kind))
    return found


@pytest.mark.parametrize("composition", ["spatial-pixel", "pixel-spatial"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("title", MODELS)
def test_every_node_of_a_step_has_a_kernel(title, norm, composition, tmp_path):
    flow, pixel = FlowBudget(0.3, norm=norm), PixelBudget(0.5, norm=norm)
    config = AttackConfig(flow=flow, pixel=pixel, composition=composition)
    path = tmp_path / "attack.onnx"
    export_attack(MODELS[title]().path, config, path, check=False, target="cuda")
    assert without_kernel(placed(path, 4, tmp_path)) == set()


def test_what_has_none_is_found(tmp_path):
    """The test's own test: a Loop's body, and a bool where numbers are expected."""
    path = tmp_path / "attack.onnx"
    config = AttackConfig(flow=FlowBudget(0.3))
    export_attack(MODELS["demo classifier"]().path, config, path, check=False, form="loop")
    assert "Loop" in {op for op, _ in without_kernel(placed(path, 4, tmp_path))}
