"""Which models can be differentiated: writes docs/models.md.

    python benchmarks/coverage.py [-o docs/models.md] [--only ViT] [--sections architectures,cases]
        [--packages FOLDER]

The architectures are those of tests/architectures.py, small and with random weights. Each model is
differentiated, run on ONNX Runtime, and compared with torch in float64. The node cases are onnx's
own tests of single operators. The files from other packages are those in FOLDER (see files.py).
Without FOLDER that section stays as it is, and so do sections that --sections does not name. Takes
some minutes.
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
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "examples"), str(ROOT / "benchmarks"), str(ROOT)]

import files  # noqa: E402  (from benchmarks/)
from architectures import ARCHITECTURES, IMAGES, measure  # noqa: E402  (from tests/)

from tests.export.node_cases import node_cases, outcome  # noqa: E402
from tests.export.test_node_cases import OTHER_RUNTIME, REFUSED  # noqa: E402

HEAD = """# Models that can be differentiated

`python benchmarks/coverage.py` wrote this page, with onnx {onnx}, ONNX Runtime {runtime} and torch
{torch}. The derivative rules follow the ONNX specification, so other models work too.
"""

FAMILIES = """
## Architectures

The models are small image classifiers of transformers and torchvision with random weights. torch
exported them with its dynamo exporter or with the older, tracing one. "Error" compares the gradient
with respect to the image, computed by ONNX Runtime in float32, with torch in float64 (relative l2).
The columns give the best and the median of {images} random images. They differ if a ReLU or a
maximum falls on the other side of its kink in float32; the best image has no such entry. "Nodes"
counts the folded model, "with gradient" the model with its gradient.

| model | exporter | opset | nodes | with gradient | ops | error | median |
|---|---|---|---|---|---|---|---|
"""

OTHERS = """
## Files from other packages

These ONNX files are inside packages of PyPI and npm; `python benchmarks/files.py` finds them. They
are classifiers, text recognizers, and some detectors. A size that a file leaves open is set to
64x192. "Error" is the one that `jataug differentiate` prints: the gradient against finite
differences, on ONNX Runtime in float32. Above 2% the file is refused. "Nodes" counts the folded
model and the model with its gradient.

The self-check refuses five text detectors. On noise their last Sigmoid is at its limit (one has no
live ReLU), so a finite difference in float32 shows nothing. Before the Sigmoid, the gradients of
the two that were tried agree to 0.4% and 0.2%. `--no-check` writes such a file.

| package | file | exporter | opset | image | nodes | ops | error, or why not |
|---|---|---|---|---|---|---|---|
"""

NODES = """
## ONNX node cases

The cases are onnx's backend tests with a floating-point input and result, without flat operators.
Each floating-point input is one case. The gradient is compared with central differences in float64.

| outcome | cases |
|---|---|
"""

SAID = {
    "right": "the gradient agrees",
    "wrong": "the gradient differs, see below",
    "refused": "refused with one line, see below",
    "not finite": "the gradient is infinite: Acosh at 1",
    "no oracle": "onnx's evaluator cannot run the case in float64, or its values are not finite",
}


def names(text: str) -> set[str]:
    known = {"architectures": "Architectures", "cases": "ONNX node cases"}
    return {known[name] for name in text.split(",") if name}


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
    text += "\nCases in which onnx's evaluator is no reference:\n\n"
    return text + "".join(f"- `{name}`: {why}.\n" for name, why in OTHER_RUNTIME.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "models.md")
    parser.add_argument("--only", default="")
    parser.add_argument("--packages", type=Path, metavar="FOLDER")
    parser.add_argument("--sections", type=names, metavar="architectures,cases")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # those of the packages
    versions = {
        "onnx": onnx.__version__,
        "runtime": onnxruntime.__version__,
        "torch": torch.__version__.partition("+")[0],
    }
    makers = {
        "Architectures": lambda: FAMILIES.format(images=IMAGES) + architectures(given.only),
        "Files from other packages": lambda: (
            OTHERS + "".join(f"{x}\n" for x in files.lines(given.packages))
        ),
        "ONNX node cases": lambda: cases(),
    }
    wanted = {"Architectures", "ONNX node cases"} if given.sections is None else given.sections
    wanted |= {"Files from other packages"} if given.packages else set()
    present = sections(given.output)
    parts = [make() if name in wanted else present[name] for name, make in makers.items()]
    given.output.write_text(HEAD.format(**versions) + "".join(parts), encoding="utf-8")


def sections(page: Path) -> dict[str, str]:
    """Return what a page says, by the names of its parts."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    found = re.split(r"(?m)^(?=## )", text)[1:]
    parts = {
        part.splitlines()[0].removeprefix("## "): "\n" + part.rstrip() + "\n" for part in found
    }
    return defaultdict(str, parts)


if __name__ == "__main__":
    main()
