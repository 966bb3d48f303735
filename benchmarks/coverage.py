"""Which models can be differentiated: writes docs/models.md.

    python benchmarks/coverage.py [-o docs/models.md] [--only ViT] [--sections architectures,cases]
        [--packages FOLDER]

The architectures are those of tests/architectures.py, small and of random weights; each file is
differentiated, run on ONNX Runtime, and compared with torch in float64. The node cases are onnx's
own tests of single ops. The files of others are those in FOLDER, see files.py; without it, and for
sections that are not named, what the output file says stays. Takes some minutes.
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

Written by `python benchmarks/coverage.py`, with onnx {onnx}, ONNX Runtime {runtime} and torch
{torch}. Other files work as well: rules are written for the ONNX specification, not for these.
"""

FAMILIES = """
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

OTHERS = """
## Files of others

ONNX files inside packages of PyPI and npm, as `python benchmarks/files.py` finds them: classifiers,
text recognizers, and some detectors for their ops. Sizes that a file leaves open are 64x192. The
error is what `jataug differentiate` says: the gradient beside finite differences on ONNX Runtime in
float32, where 2% is refused. Nodes: of the folded model, and with its gradient. The five refused
by the self-check are text detectors: on noise their last Sigmoid is at its limit (one has no live
ReLU), where float32 shows no difference. Before it the gradients of the two that were tried agree
to 0.4% and 0.2%; `--no-check` writes the file.

| package | file | exporter | opset | image | nodes | ops | error, or why not |
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
    text += "\nWhere onnx's evaluator is no oracle:\n\n"
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
        "Files of others": lambda: OTHERS + "".join(f"{x}\n" for x in files.lines(given.packages)),
        "ONNX node cases": lambda: cases(),
    }
    wanted = {"Architectures", "ONNX node cases"} if given.sections is None else given.sections
    wanted |= {"Files of others"} if given.packages else set()
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
