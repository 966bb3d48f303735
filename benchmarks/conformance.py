"""Which runtime runs which form of which model, how far from the golden result, and how fast.

    python benchmarks/conformance.py            # prints the table
    python benchmarks/conformance.py --write    # and writes benchmarks/results/conformance.*

Needs jataug[cpu,openvino,torch], tract, Node.js and npm. Each cell is a row of `jataug runtimes`,
but for those of JavaScript, which this script drives itself: the largest difference of loss and
logits, the part of the update that is another one, and the time of a call in calls of ONNX
Runtime's CPU provider; or why there is none.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
PLACES = ("benchmarks", "tests", "examples", "examples/vector")
sys.path[:0] = [str(HERE.parent / name) for name in PLACES]

import make  # noqa: E402  # of examples/vector
import material  # noqa: E402
from javascript import javascript  # noqa: E402

from jataug import AttackConfig, FlowBudget, PixelBudget  # noqa: E402
from jataug.export import export_attack  # noqa: E402
from jataug.selfcheck import survey  # noqa: E402
from jataug.selfcheck.candidates import candidates  # noqa: E402

FORMS = ("step", "loop", "unrolled")
STEPS = 3
IMAGES = 2
"""In a call of `jataug runtimes`."""


def models():
    return {
        "test vector, 600 weights, 10x9": make.network(),
        "demo classifier, 28x28": material.demo_classifier().path,
        "ResNet-18, random weights, 32x32": material.resnet18_cifar().path,
    }


def measured(model, form, folder, threads):
    config = AttackConfig.preset(
        "claim-1", flow=FlowBudget(0.3), pixel=PixelBudget("8/255"), steps=STEPS
    )
    path, processes = folder / "attack.onnx", {}
    export_attack(model, config, path, form=form, check=False)
    more = javascript(folder, processes, threads)
    found = survey(path, threads=threads, found=lambda proto: [*candidates(proto), *more])
    rows = [_timed(row, processes) for row in found.rows if row.status != "not installed"]
    for process in processes.values():
        process.close()
    golden = next(row for row in rows if row.provider == "CPUExecutionProvider")
    return [
        {
            "runtime": f"{row.runtime} {row.version} {row.provider}",
            "status": row.status,
            "values": row.values,
            "moved": row.moved,
            "milliseconds": row.milliseconds,
            "ratio": row.milliseconds and row.milliseconds / golden.milliseconds,
            "reason": row.reason,
        }
        for row in rows
    ]


def _timed(row, processes):
    """A JavaScript runtime's own clock, without what its inputs and outputs take."""
    if row.milliseconds is None or row.runtime not in processes:
        return row
    return dataclasses.replace(row, milliseconds=processes[row.runtime].median() / IMAGES)


def cell(row):
    if row["values"] is None:
        return row["reason"].partition(";")[0].replace("|", "/")
    wrong = "WRONG, " if row["status"] == "wrong" else ""
    return f"{wrong}{row['values']:.0e}, {row['moved']:.1%}, {row['ratio']:.2f}x"


def table(cells):
    names = list(dict.fromkeys(row["runtime"] for rows in cells.values() for row in rows))
    lines = [f"| model, form | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for (model, form), rows in cells.items():
        by_name = {row["runtime"]: cell(row) for row in rows}
        missing = "not tried: too large for it"
        found = [by_name.get(name, missing) for name in names]
        lines.append(f"| {model}, {form} | {' | '.join(found)} |")
    return "\n".join(lines)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--write", action="store_true")
    arguments.add_argument("--threads", type=int, default=1)
    given = arguments.parse_args()
    cells = {}
    with TemporaryDirectory() as folder:
        for name, model in models().items():
            for form in FORMS:
                cells[name, form] = measured(model, form, Path(folder), given.threads)
                print(name, form, [cell(row) for row in cells[name, form]], file=sys.stderr)
    text = (
        "# Runtimes, forms, models\n\n"
        f"By `python benchmarks/conformance.py --write --threads {given.threads}` on "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, Python "
        f"{platform.python_version()}. A cell is the largest difference of loss and logits from "
        "the golden result (relative), the part of the update that is another one (docs/"
        "runtimes.md), and the time of a call in calls of ONNX Runtime's CPU provider (medians of "
        f"5, two images, a shared machine). Preset claim-1, {STEPS} steps.\n\n{table(cells)}\n"
    )
    print(text)
    if given.write:
        found = [{"model": m, "form": f, "rows": rows} for (m, f), rows in cells.items()]
        (HERE / "results" / "conformance.json").write_text(json.dumps(found, indent=1) + "\n")
        (HERE / "results" / "conformance.md").write_text(text)


if __name__ == "__main__":
    main()
