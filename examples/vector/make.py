"""Write the test vector that a driver in any language checks itself against.

    python examples/vector/make.py              # beside this file
    python examples/vector/make.py -o folder

Needs jataug[cpu]. Three attacks on a network of 600 weights, each in one or more forms, with what
ONNX Runtime on the CPU makes of them: vector.json names every number, vector.bin holds the arrays,
raw and little-endian. docs/drivers.md, The test vector, says what each one is.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import parser

from jataug import AttackConfig, FlowBudget, PixelBudget, Session, streams
from jataug.artifact import load_artifact
from jataug.export import export_attack
from jataug.finalize import finalize, from_levels, quantize
from jataug.preprocessing import Preprocessing
from jataug.runtime.onnxruntime import Engine
from jataug.runtime.task import Task, radii_and_steps, start_state

HERE = Path(__file__).resolve().parent
SHAPE = (3, 10, 9)
CLASSES = 5
TOLERANCE = 1e-4
PREPROCESSING = Preprocessing(mean=(0.5, 0.4, 0.45), std=(0.25, 0.3, 0.2))

NETWORK = """
<ir_version: 10, opset_import: ["" : 18]>
network (float[N, 3, 10, 9] image) => (float[N, 5] logits) {
    first = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (image, first_weight, first_bias)
    bent = Relu (first)
    pooled = MaxPool <kernel_shape = [2, 2], strides = [1, 1]> (bent)
    second = Conv <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (pooled, kernel)
    squashed = Sigmoid (second)
    wide = Mul (second, squashed)
    mean = GlobalAveragePool (wide)
    flat = Flatten (mean)
    logits = Gemm (flat, head_weight, head_bias)
}
"""
WEIGHTS = {
    "first_weight": (6, 3, 3, 3),
    "first_bias": (6,),
    "kernel": (8, 6, 3, 3),
    "head_weight": (8, CLASSES),
}
HEAD_BIAS = (-1.1, -5.0, 0.7, 3.4, -1.6)  # the classes are about as likely as each other


@dataclass(frozen=True)
class Case:
    """One attack: its options, the forms it is exported in, and what a driver is given."""

    name: str
    config: AttackConfig
    forms: tuple[str, ...]
    seed: int
    epoch: int
    indices: tuple[int, ...]
    flow: tuple[float, ...]
    pixel: tuple[float, ...]


CASES = (
    Case(
        name="claim-1",
        config=AttackConfig.preset(
            "claim-1", flow=FlowBudget(0.8), pixel=PixelBudget("8/255"), steps=4
        ),
        forms=("step", "loop", "unrolled"),
        seed=9,
        epoch=0,
        indices=(0, 1, 2),
        flow=(0.8, 0.5, 0.0),
        pixel=(8 / 255, 5 / 255, 1 / 255),
    ),
    Case(
        name="evaluation",
        config=AttackConfig.preset(
            "evaluation",
            flow=FlowBudget(0.3),
            pixel=PixelBudget("8/255"),
            steps=5,
            pixel_objective="target",  # a higher loss may be of an image that is not misclassified
            flow_step=0.5,  # steps too long: the best iterate is not the last
            pixel_step="14/255",
        ),
        forms=("step", "loop"),
        seed=2**64 - 795,
        epoch=3,
        indices=(7, 123456789, 2**53 - 1),
        flow=(0.3, 0.3, 0.2),
        pixel=(8 / 255, 0.0, 2 / 255),
    ),
    Case(
        name="claim-8",
        config=AttackConfig.preset(
            "claim-8",
            flow=FlowBudget(1.4, "linf"),
            pixel=PixelBudget(0.6, "l2"),
            steps=3,
            keep="best",
            redraw_targets=True,
        ),
        forms=("step",),
        seed=1,
        epoch=1,
        indices=(3, 4, 5),
        flow=(1.4, 1.1, 0.6),
        pixel=(0.6, 0.3, 0.6),
    ),
)


def network() -> onnx.ModelProto:
    """The classifier, with seeded weights."""
    model = parser.parse_model(NETWORK)
    random = np.random.Generator(np.random.Philox(20))
    for name, shape in WEIGHTS.items():
        fan = int(np.prod(shape[1:])) or 1
        weight = random.normal(0, 1.6 / np.sqrt(fan), shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    bias = onnx.numpy_helper.from_array(np.array(HEAD_BIAS, np.float32), "head_bias")
    model.graph.initializer.append(bias)
    return model


def pictures() -> np.ndarray:
    """Three smooth pictures with some black and white pixels: (3, 10, 9, 3), uint8."""
    random = np.random.Generator(np.random.Philox(25))
    row, column = np.mgrid[0 : SHAPE[1], 0 : SHAPE[2]]
    levels = np.empty((3, SHAPE[1], SHAPE[2], 3))
    for at in np.ndindex(3, 3):
        down, across, phase = random.uniform(0.2, 1.1, 3)
        levels[at[0], :, :, at[1]] = 127 + 160 * np.sin(down * row + across * column + 6 * phase)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def expected(case: Case, path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Run the step form on ONNX Runtime's CPU; return what a driver is given, and the arrays."""
    model, manifest = load_artifact(path)
    config, levels = case.config, pictures()
    image = from_levels(levels)
    with Session.open(path, device="cpu", threads=1) as session:
        clean = session.predict(levels)
        label = clean.argmax(axis=1)
        options = {"seed": case.seed, "epoch": case.epoch}
        radii = np.array(case.flow, np.float32), np.array(case.pixel, np.float32)
        result = session.attack(
            levels, label, np.array(case.indices), flow=radii[0], pixel=radii[1], **options
        )
    target = streams.target_labels(case.seed, case.indices, label, CLASSES, epoch=case.epoch)
    task = Task(image, label, target, *radii, case.indices, case.seed, case.epoch)
    flow, delta = start_state(task, config)
    numbers = radii_and_steps(task, config, config.steps)
    arrays = {
        "levels": levels,
        "clean_logits": clean,
        "start_flow": flow,
        "start_delta": delta,
        **_iterations(model, manifest, task, numbers, (flow, delta), config),
        "final_levels": result.adversarial,
        "final_flow": result.flow.astype(np.float32),
        "final_delta": result.delta,
        "final_loss": result.loss,
        "final_logits": result.logits,
    }
    given = {
        "seed": str(case.seed),  # as text: many JSON readers keep 53 bits of a number
        "epoch": case.epoch,
        "indices": list(case.indices),
        "steps": config.steps,
        "labels": label.tolist(),
        "targets": target.tolist(),
        "last_targets": result.target.tolist(),
        "success": result.success.tolist(),
        **{name: [float(v) for v in values] for name, values in numbers.items()},
    }
    return given, arrays


def _iterations(model, manifest, task, numbers, state, config) -> dict[str, np.ndarray]:
    engine = Engine(model, {"N": len(task.image), "R": len(task.image)}, "cpu", 1)
    arrays, target = {}, task.target
    states, losses, entropies, wrong = [], [], [], []
    for number in range(config.steps + 1):
        if number and number < config.steps and config.redraw_targets:
            target = streams.target_labels(
                task.seed, task.index, task.label, CLASSES, iteration=number, epoch=task.epoch
            )
        feeds = {"image": task.image, "label": task.label, "target": target, **numbers}
        out = engine.run({**feeds, "flow": state[0], "delta": state[1]})
        states.append(state)
        losses.append(out["loss"])
        entropies.append(entropy(out["logits"], task.label))
        wrong.append(out["logits"].argmax(axis=1) != task.label)
        if number == 0:
            arrays |= {"start_loss": out["loss"], "start_logits": out["logits"]}
            arrays |= {"first_flow": out["next_flow"], "first_delta": out["next_delta"]}
            arrays["first_adversarial"] = out["adversarial"]
        state = out["next_flow"], out["next_delta"]
    kept = np.full(len(task.image), config.steps)
    if config.keep == "best":
        # Losses of targets that are drawn anew cannot be compared: the label's cross entropy can.
        value = entropies if config.redraw_targets else losses
        rank = np.where(wrong, 1e6, 0) + np.array([value, losses])  # misclassified, then the value
        kept, by_loss = rank.argmax(axis=1)
        other = by_loss if config.redraw_targets else np.argmax(losses, axis=0)
        if (kept == other).all():
            raise SystemExit("the highest loss finds the same iterates; take another seed")
    for at, name in enumerate(("flow", "delta")):
        arrays[f"last_{name}"] = states[-1][at]
        arrays[f"kept_{name}"] = np.stack([states[k][at][row] for row, k in enumerate(kept)])
    return arrays


def entropy(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The cross entropy of each label: (N,)."""
    return np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(label)), label]


def check_condition(case: Case, folder: Path, given: dict, arrays: dict[str, np.ndarray]) -> None:
    """Raise where another form, or the same graph without the runtime's fusions, ends more than a
    tenth of the tolerance away: the directions are those of gradients, and one that nearly cancels
    would hold a driver to its runtime's rounding.
    """
    levels = onnxruntime.GraphOptimizationLevel
    for form in case.forms:
        for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL):
            state = _last_state(case, folder / f"{case.name}-{form}.onnx", level, given, arrays)
            name = "last" if form == "step" else "kept"
            for branch, array in state.items():
                if np.abs(array - arrays[f"{name}_{branch}"]).max() > TOLERANCE / 10:
                    raise SystemExit(f"{case.name}: {form} ends elsewhere; take another seed")


def _last_state(case, path, level, given, arrays) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.intra_op_num_threads = level, 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = ("flow_radius", "pixel_radius", "flow_step", "pixel_step")
    feeds = {name: np.array(given[name], np.float32) for name in names}
    feeds |= {"image": from_levels(arrays["levels"]), "label": np.array(given["labels"])}
    state, target = [arrays["start_flow"], arrays["start_delta"]], np.array(given["targets"])
    for number in range(case.config.steps if path.stem.endswith("step") else 1):
        if number and case.config.redraw_targets:
            target = streams.target_labels(
                case.seed, case.indices, given["labels"], CLASSES,
                iteration=number, epoch=case.epoch,
            )  # fmt: skip
        now = {"flow": state[0], "delta": state[1], "target": target}
        state = session.run(["next_flow", "next_delta"], {**feeds, **now})
    return {"flow": state[0], "delta": state[1]}


def check_rounding(case: Case, arrays: dict[str, np.ndarray]) -> None:
    """Raise where a change of 3e-7 in the last state moves an 8-bit level or the float16 flow by a
    step: then no driver could be held to either.
    """
    image = from_levels(arrays["levels"])
    radii = np.array(case.flow, np.float32), np.array(case.pixel, np.float32)
    for change in (0, -3e-7, 3e-7):
        flow, delta = (
            array + np.float32(change) * (array != 0)
            for array in (arrays["kept_flow"], arrays["kept_delta"])
        )
        exact, warped, half, _ = finalize(image, flow, delta, *radii, case.config)
        moved = (quantize(exact, warped, radii[1]) != arrays["final_levels"]).any()
        if moved or np.abs(half - arrays["final_flow"]).max() > TOLERANCE / 2:
            raise SystemExit(f"{case.name}: a rounding hangs by a thread; take another seed")
    last_is_best = (arrays["kept_delta"] == arrays["last_delta"]).all()
    if last_is_best == (case.config.keep == "best"):
        raise SystemExit(f"{case.name}: every image keeps its last iterate; take another seed")


def write(folder: Path) -> None:
    """Write the artifacts, vector.json and vector.bin."""
    folder.mkdir(parents=True, exist_ok=True)
    raw, cases, model = bytearray(), [], network()
    for case in CASES:
        files = {form: f"{case.name}-{form}.onnx" for form in case.forms}
        for form, name in files.items():
            export_attack(model, case.config, folder / name, preprocessing=PREPROCESSING, form=form)
        given, arrays = expected(case, folder / files["step"])
        check_condition(case, folder, given, arrays)
        check_rounding(case, arrays)
        tensors = {}
        for name, array in arrays.items():
            kind = "uint8" if array.dtype == np.uint8 else "float32"
            tensors[name] = {"dtype": kind, "shape": list(array.shape), "offset": len(raw)}
            raw += np.ascontiguousarray(array, f"<{np.dtype(kind).str[1:]}").tobytes()
            raw += bytes(-len(raw) % 4)
        cases.append({"name": case.name, "artifacts": files, **given, "tensors": tensors})
    vector = {"format_version": 1, "tolerance": TOLERANCE, "data": "vector.bin", "cases": cases}
    (folder / "vector.bin").write_bytes(raw)
    text = json.dumps(vector, indent=1)
    (folder / "vector.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("-o", "--output", type=Path, default=HERE)
    write(arguments.parse_args().output)
