"""A joint attack on OpenVINO, in float32 and bfloat16, beside ONNX Runtime: time and strength.

    python benchmarks/engines.py [--rounds 9]

The strength is the robust accuracy of what `Session.attack` returns, each engine measured by ONNX
Runtime in float32. bfloat16 is not a choice of jataug's: this asks OpenVINO for it.
"""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "examples")]

import material  # noqa: E402
import numpy as np  # noqa: E402
from timing import Row, interleaved, print_rows, ratios  # noqa: E402

import jataug  # noqa: E402
from jataug.export import export_attack  # noqa: E402
from jataug.runtime import openvino  # noqa: E402

STEPS = 10
ENGINES = ("onnxruntime", "openvino", "openvino, bf16")


@contextlib.contextmanager
def precision(engine: str) -> Iterator[str]:
    """Yield the backend's name; new engines of it compute in the precision asked for."""
    backend, _, wanted = engine.partition(", ")
    kept = openvino.Engine.precision
    openvino.Engine.precision = wanted or kept
    try:
        yield backend
    finally:
        openvino.Engine.precision = kept


def opened(path: Path, engine: str, batch: int) -> jataug.Session | None:
    """Return a session that has run once, or None where the processor lacks the precision."""
    with precision(engine) as backend:
        session = jataug.Session.open(path, backend=backend, device="cpu", batch_size=batch)
        channel, height, width = session.image_shape
        try:
            session.attack(np.zeros((batch, height, width, channel), np.uint8))
        except jataug.RuntimeUnavailable as error:
            print(f"  {engine}: {error}")
            return None
    return session


def rows(rounds: int, smoke: bool = False) -> Iterator[Row]:
    """Yield the rows of benchmarks/README.md: times in ONNX Runtime's, accuracies in percent."""
    images, labels = material.demo_images()
    demo = (material.demo_classifier(), images[..., None], labels, 64, 0.3, 2 / 255)
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (32, 32, 32, 3), np.uint8)
    cases = {"demo classifier, batch 64": demo}
    if not smoke:
        model = material.resnet18_cifar()
        cases["ResNet-18, batch 32"] = (model, pictures, None, 32, 0.3, 8 / 255)
    with tempfile.TemporaryDirectory() as folder:
        for title, (model, images, labels, batch, flow, pixel) in cases.items():
            path = Path(folder) / "attack.onnx"
            config = jataug.AttackConfig.preset(
                "evaluation", flow=jataug.FlowBudget(flow), pixel=jataug.PixelBudget(pixel),
                steps=STEPS,
            )  # fmt: skip
            export_attack(model.path, config, path, check=False)
            sessions = {name: opened(path, name, batch) for name in ENGINES}
            ready = {name: session for name, session in sessions.items() if session}
            some = images[:batch]
            work = {name: lambda s=s, some=some: s.attack(some) for name, s in ready.items()}
            for name, found in ratios(interleaved(work, rounds), ENGINES[0]).items():
                yield Row(f"joint attack, {STEPS} steps, {title}: {name}", ENGINES[0], *found)
            if labels is None:
                continue
            golden = sessions[ENGINES[0]]
            accuracy = {
                name: robust(session, golden, images, labels) for name, session in ready.items()
            }
            for name, value in accuracy.items():
                unit = f"% robust accuracy ({len(images)} images)"
                yield Row(f"joint attack, {STEPS} steps, {title}: {name}", unit, *(value,) * 3)


def robust(session, golden, images, labels) -> float:
    """Return the accuracy in percent on the adversarial images, measured by another session."""
    made = session.attack(images, labels).adversarial
    return 100 * float((golden.predict(made).argmax(1) == labels).mean())


if __name__ == "__main__":
    print_rows(__doc__, rows, 9)
