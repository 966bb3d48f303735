"""--for portable: what one of the runtimes lacks is refused, and what is let through runs."""

from importlib.util import find_spec

import material
import pytest
from click.testing import CliRunner
from onnx import helper, parser

from jataug import AttackConfig, FlowBudget, ModelError, PixelBudget
from jataug.cli import main
from jataug.export import export_attack
from jataug.export.check.portable import _LACKING, check_portable
from jataug.runtime import openvino, tract
from jataug.selfcheck import survey

CONFIG = AttackConfig(flow=FlowBudget(0.6), pixel=PixelBudget("8/255"), steps=2)
NET = """
<ir_version: 10, opset_import: ["" : 18]>
network (float[N, 1, 8, 8] image) => (float[N, 4] logits)
<float[3, 1, 3, 3] kernel, float[3, 4] weight> {
    hidden = Conv <pads = [1, 1, 1, 1]> (image, kernel)
    POOL
    flat = Flatten (pooled)
    logits = MatMul (flat, weight)
}
"""
POOLS = {
    "GlobalAveragePool": "pooled = GlobalAveragePool (hidden)",
    "LpPool": "pooled = LpPool <kernel_shape = [8, 8], p = 2> (hidden)",
}


def net(pool):
    import numpy as np
    from onnx import numpy_helper

    text = NET.replace("POOL", POOLS[pool]).replace(
        "<float[3, 1, 3, 3] kernel, float[3, 4] weight>", ""
    )
    model = parser.parse_model(text)
    random = np.random.default_rng(0)
    for name, shape in (("kernel", (3, 1, 3, 3)), ("weight", (3, 4))):
        array = random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


@pytest.mark.parametrize("form", ["step", "unrolled"])
@pytest.mark.parametrize("flow", [0.6, 3.5], ids=["stencil", "gathers"])
def test_what_is_let_through_runs_right_on_all_that_are_here(tmp_path, form, flow):
    config = CONFIG.replace(flow=FlowBudget(flow))
    path = tmp_path / "attack.onnx"
    options = {"form": form, "check": False, "target": "portable"}
    export_attack(net("GlobalAveragePool"), config, path, **options)
    found = survey(path)
    for row in found.rows:
        # numpy's choose, with which the reference evaluator gathers, ends at 64 rows.
        known = row.runtime == "onnx" and "64 array objects" in (row.reason or "")
        assert row.status in ("right", "not installed") or known, row
    assert any(row.status == "right" for row in found.rows)


def test_a_loop(tmp_path):
    path = tmp_path / "attack.onnx"
    with pytest.raises(ModelError, match=r"tract lacks the operator Loop .*form step or unrolled"):
        export_attack(net("GlobalAveragePool"), CONFIG, path, form="loop", target="portable")
    assert not path.exists()


def test_an_operator_of_the_classifier(tmp_path):
    path = tmp_path / "attack.onnx"
    with pytest.raises(ModelError, match=r"portable: tract lacks the operator LpPool .*classifier"):
        export_attack(net("LpPool"), CONFIG, path, target="portable")
    export_attack(net("LpPool"), CONFIG, path)
    if find_spec("tract") is not None:
        (row,) = survey(path, ["tract"]).rows
        assert row.status == "refused"
        assert "lacks the operator LpPool" in row.reason


def test_a_newer_opset_and_another_domain():
    model = net("GlobalAveragePool")
    check_portable(model)
    model.opset_import[0].version = 27
    with pytest.raises(ModelError, match=r"has opset 27 .*at most 26 and 13"):
        check_portable(model)
    model.opset_import[0].version = 26
    check_portable(model)
    model.ir_version = 14
    with pytest.raises(ModelError, match="opset 26 and IR version 14"):
        check_portable(model)
    model.ir_version = 10
    model.graph.node[0].domain = "com.microsoft"
    with pytest.raises(
        ModelError, match=r"com\.microsoft\.Conv .*not an operator of the ONNX standard"
    ):
        check_portable(model)


def lacked():
    return [
        (runtime, op)
        for runtime, op in (("OpenVINO", "Det"), ("OpenVINO", "MaxUnpool"), ("tract", "Det"))
        if op in _LACKING[runtime]
    ]


@pytest.mark.parametrize(("runtime", "op"), lacked())
def test_the_table_is_true(runtime, op):
    module = {"OpenVINO": openvino, "tract": tract}[runtime]
    if find_spec(module.__name__.rpartition(".")[2]) is None:
        pytest.skip(f"{runtime} is not installed")
    x = helper.make_tensor_value_info("x", 1, [1, 1, 2, 2])
    i = helper.make_tensor_value_info("i", 7, [1, 1, 2, 2])
    y = helper.make_tensor_value_info("y", 1, None)
    options = {"kernel_shape": [2, 2]} if op == "MaxUnpool" else {}
    names = ["x", "i"] if op == "MaxUnpool" else ["x"]
    node = helper.make_node(op, names, ["y"], **options)
    graph = helper.make_graph([node], "g", [x, i][: len(names)], [y])
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    with pytest.raises(ModelError, match=f"lacks the operator {op}"):
        module.Engine(model, {})


def test_on_the_command_line(tmp_path):
    def run(*words):
        demo = material.demo_classifier().path
        given = ["export", str(demo), "-o", str(tmp_path / "a.onnx"), "--no-check", *words]
        return CliRunner().invoke(main, given)

    assert run("--for", "portable").exit_code == 0
    loop = run("--for", "portable", "--form", "loop")
    assert loop.exit_code == 2
    assert loop.output.startswith("Error: portable: tract lacks the operator Loop")
    assert run("--for", "tpu").exit_code == 2
