"""16 bits on ONNX Runtime's CPU provider, which has no kernels for bfloat16."""

import onnx
import onnxruntime
from onnx import TensorProto, helper

from jataug.export.model.element_types.precision import float32_ends

__all__ = ["rounded", "unoptimised"]


def rounded(model):
    """Return a bfloat16 graph that ONNX Runtime's CPU can run: each node between casts, so that it
    computes in float32 and every value is rounded, as a GPU's products are.
    """
    model = onnx.shape_inference.infer_shapes(float32_ends(model))
    graph = model.graph
    kinds = {
        **{v.name: v.type.tensor_type.elem_type for v in graph.value_info},
        **{t.name: t.data_type for t in graph.initializer},
    }
    nodes = []
    for node in graph.node:
        after = []
        for i, name in enumerate(node.input if node.op_type != "Cast" else ()):
            if kinds.get(name) == TensorProto.BFLOAT16:
                node.input[i] = f"{name}_wide_{len(nodes)}"
                nodes.append(helper.make_node("Cast", [name], [node.input[i]], to=1))
        for i, name in enumerate(node.output if node.op_type != "Cast" else ()):
            if kinds.get(name) == TensorProto.BFLOAT16:
                node.output[i] = f"{name}_wide"
                cast = helper.make_node("Cast", [node.output[i]], [name], to=TensorProto.BFLOAT16)
                after.append(cast)
        nodes += [node, *after]
    copy = helper.make_graph(nodes, "rounded", graph.input, graph.output, graph.initializer)
    return helper.make_model(copy, opset_imports=model.opset_import, ir_version=10)


def unoptimised(model, feeds):
    """Run with every cast in its place."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)
