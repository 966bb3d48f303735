"""What it saves that broken images leave an attack at once: gradients and time, in those without.

    python benchmarks/evaluating.py [--rounds 5]

The demo classifier at several pixel radii, by what `jataug evaluate` runs. "Without" attacks every
image to the last step, and with every restart. The robust accuracy is the same, which is checked.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "examples")]

import material  # noqa: E402
import numpy as np  # noqa: E402
from timing import Row, print_rows, spread  # noqa: E402

from jataug.evaluation.attacks.ascent import Ascent  # noqa: E402
from jataug.evaluation.attacks.best_found import Best  # noqa: E402
from jataug.evaluation.attacks.perturbation import Context  # noqa: E402
from jataug.evaluation.attacks.restarts import run_tries  # noqa: E402
from jataug.evaluation.attacks.tries import Rows  # noqa: E402
from jataug.evaluation.models.model import Calls  # noqa: E402
from jataug.evaluation.models.onnx import OnnxModel  # noqa: E402

BATCH, FLOW, STEPS, RESTARTS = 128, 0.3, 20, 5


def everything(attack: Ascent, calls: Calls, rows: Rows) -> Best:
    """As `drive`, but nothing leaves."""
    best, all_of_them = Best(rows), np.arange(len(rows))
    with mock.patch.object(Best, "open", lambda self, where: np.ones(len(where), bool)):
        for number in range(attack.restarts):
            turn = rows.replace(restart=np.full(len(rows), number))
            found = attack.run(calls, turn, Context())
            best.put(all_of_them, found.view, found.margin)
    return best


def rows(rounds: int, smoke: bool = False) -> Iterator[Row]:
    """Yield the rows of benchmarks/README.md."""
    count, steps, restarts = (32, 3, 2) if smoke else (256, STEPS, RESTARTS)
    images, labels = (array[:count] for array in material.demo_images())
    pictures = (images[:, None] / np.float32(255)).astype(np.float32)
    model = OnnxModel(material.DEMO / "classifier.onnx", device="cpu", batch_size=BATCH)
    logits = model.logits(pictures)
    right = logits.argmax(1) == labels
    for radius in (1, 4):
        work = Rows.first_tries(pictures, labels, np.arange(count), FLOW, radius / 255).take(right)
        for tries in (1, restarts):
            attack = Ascent(branches=("flow", "pixel"), steps=steps, restarts=tries)
            ways = {
                "with": lambda calls, a=attack, w=work: run_tries(
                    a, calls, w, logits[right], Context()
                ),
                "without": lambda calls, a=attack, w=work: everything(a, calls, w),
            }
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            gradients, broken = {}, {}
            for _ in range(rounds):
                for name, run in ways.items():
                    calls, began = Calls(model, BATCH), time.perf_counter()
                    broken[name] = run(calls).margin > 0
                    seconds[name].append(time.perf_counter() - began)
                    gradients[name] = calls.gradients
            if not np.array_equal(broken["with"], broken["without"]):
                raise SystemExit(f"{attack}: other images are broken")
            title = f"joint attack, {steps} steps, {tries} restarts, {FLOW} px + {radius}/255"
            title += f", {100 * (1 - broken['with'].mean()):.0f}% withstand"
            share = gradients["with"] / gradients["without"]
            yield Row(f"{title}: gradients", "without", share, share, share)
            pairs = zip(seconds["with"], seconds["without"], strict=True)
            yield Row(f"{title}: time", "without", *spread(a / b for a, b in pairs))


if __name__ == "__main__":
    print_rows(__doc__, rows, 5)
