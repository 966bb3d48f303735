"""Which models can be differentiated: writes docs/models.md.

    python benchmarks/coverage.py [-o docs/models.md] [--only ViT]

The architectures are those of tests/architectures.py, small and of random weights; each file is
differentiated, run on ONNX Runtime, and compared with torch in float64. The node cases are onnx's
own tests of single ops. Takes some minutes.
"""

import argparse
import re
import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import onnx
import onnxruntime
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples"), str(ROOT)]

from architectures import ARCHITECTURES, IMAGES, measure  # noqa: E402  (from tests/)

from tests.export.node_cases import node_cases, outcome  # noqa: E402
from tests.export.test_node_cases import OTHER_RUNTIME, REFUSED  # noqa: E402

HEAD = """# Models that can be differentiated

Written by `python benchmarks/coverage.py`, with onnx {onnx}, ONNX Runtime {runtime} and torch
{torch}. Other files work as well: rules are written for the ONNX specification, not for these.

## Architectures

Image classifiers of transformers and torchvision, small and of random weights, as torch exports
them: with its dynamo exporter, or the older one, which traces. The error is that of the gradient
with respect to the image, on ONNX Runtime in float32, beside torch in float64 (relative l2): the
best and the median of {images} random images. The two differ where a ReLU or a maximum falls on
the other side of its kink in float32; the best image has no such place. Nodes are those of the
folded model, and of the model with its gradient.

| model | exporter | opset | nodes | with gradient | ops | error | median |
|---|---|---|---|---|---|---|---|
"""

NODES = """
## ONNX node cases

Every case of onnx's backend tests with a floating-point input and result, unless its op is flat,
once for each such input; compared with central differences in float64.

| outcome | cases |
|---|---|
"""

SAID = {
    "right": "the gradient agrees",
    "wrong": "it does not, see below",
    "refused": "refused with one line, see below",
    "not finite": "the gradient is no number, which the self-check refuses: rows masked out whole",
    "no oracle": "onnx's evaluator cannot run the case in float64, or its values are not finite",
}


def architectures(wanted: str) -> str:
    lines = []
    for architecture in ARCHITECTURES:
        if wanted not in architecture.name:
            continue
        found = measure(architecture)
        cells = [
            architecture.name,
            architecture.exporter,
            str(architecture.opset),
            str(found.nodes),
            str(found.total),
            str(len(found.rules)),
            f"{found.error:.0e}",
            f"{found.median:.0e}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def cases() -> str:
    found = [(case, outcome(case)) for case in node_cases()]
    counts = Counter(result.kind for _, result in found)
    text = NODES + "".join(f"| {SAID[k]} | {n} |\n" for k, n in counts.most_common())
    text += "\nRefused, and why:\n\n| why | cases | ops |\n|---|---|---|\n"
    reasons = defaultdict(list)
    for case, result in found:
        if result.kind == "refused":
            why = next((w for w, p in REFUSED.items() if re.search(p, result.reason)), "other")
            reasons[why].append(case.op_type)
    for why, ops in sorted(reasons.items(), key=lambda item: -len(item[1])):
        named = ", ".join(op for op, _ in Counter(ops).most_common(8))
        text += f"| {why} | {len(ops)} | {named} |\n"
    text += "\nWhere onnx's evaluator is no oracle:\n\n"
    return text + "".join(f"- `{name}`: {why}.\n" for name, why in OTHER_RUNTIME.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "models.md")
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # those of the packages
    versions = {
        "onnx": onnx.__version__,
        "runtime": onnxruntime.__version__,
        "torch": torch.__version__.partition("+")[0],
    }
    text = HEAD.format(images=IMAGES, **versions) + architectures(given.only) + cases()
    given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
