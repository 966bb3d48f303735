"""Where the time above the floor goes: forward + gradient against two forwards, by kind of node.

    python benchmarks/excess.py [--rounds 8] [--only resnet18] [--write]

ONNX Runtime's own profile, kernel times summed over the nodes of a kind and divided by the time of
one forward pass. "Above the floor" is what a kind takes in forward + gradient beyond twice what it
takes in the forward pass; convolutions and matrix products are one kind each, whatever the node is
called. --write puts the tables into benchmarks/results/excess.md.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "examples"), str(HERE)]

import gradient  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from timing import machine  # noqa: E402

KINDS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "FusedConv"), "convolutions"),
    **dict.fromkeys(("Gemm", "MatMul", "FusedMatMul", "FusedGemm"), "matrix products"),
}
SHOWN = 6


class Profiled:
    """A session that adds up the kernel time of every kind of node."""

    def __init__(self, model: onnx.ModelProto, sizes: dict[str, int], folder: str) -> None:
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.log_severity_level = True, 4
        options.profile_file_prefix = str(Path(folder) / "profile")
        for name, size in sizes.items():
            options.add_free_dimension_override_by_name(name, size)
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._runs = 0

    def run(self, image: np.ndarray) -> None:
        generator = np.random.default_rng(0)
        feeds = {}
        for value in self._session.get_inputs():
            other = len(feeds) > 0
            feeds[value.name] = (
                generator.standard_normal(value.shape).astype(np.float32) if other else image
            )
        self._session.run(None, feeds)
        self._runs += 1

    def seconds(self) -> Counter[str]:
        """Return the seconds a run by kind; the session ends."""
        events = json.loads(Path(self._session.end_profiling()).read_text())
        found: Counter[str] = Counter()
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
                kind = event["args"]["op_name"]
                found[KINDS.get(kind, kind)] += event["dur"] / 1e6 / self._runs
        return found


def table(title: str, case: gradient.Case, rounds: int) -> str:
    """Return one model's table as Markdown."""
    model = case.load()
    proto = onnx.load(model.path)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    image = np.random.default_rng(0).random(
        (case.batch, *(d.dim_value for d in dims[1:])), np.float32
    )
    with tempfile.TemporaryDirectory() as folder:
        forward = Profiled(proto, {dims[0].dim_param: case.batch}, folder)
        both = Profiled(gradient.differentiate(model.path), {"N": case.batch}, folder)
        for _ in range(rounds):
            forward.run(image)
            both.run(image)
        one, two = forward.seconds(), both.seconds()
    unit = sum(one.values())
    above = Counter({kind: (two[kind] - 2 * one[kind]) / unit for kind in one | two})
    excess = sum(above.values())
    top = sum(value for _, value in above.most_common(5))
    lines = [
        f"## {title}",
        "",
        f"{sum(two.values()) / unit:.2f} forwards of kernel time; {excess:+.2f} above the floor, "
        f"of which the first five kinds are {top:.2f}.",
        "",
        "| kind | forward | forward + gradient | above the floor |",
        "|---|---|---|---|",
    ]
    for kind, value in above.most_common(SHOWN):
        lines.append(f"| {kind} | {one[kind] / unit:.3f} | {two[kind] / unit:.3f} | {value:+.3f} |")
    rest = excess - sum(value for _, value in above.most_common(SHOWN))
    return "\n".join([*lines, f"| all others | | | {rest:+.3f} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", default="", help="part of a case's name, without hyphens")
    parser.add_argument("--write", action="store_true", help="into benchmarks/results/excess.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    title = "# What is above two forwards"
    about = f"`python benchmarks/excess.py`; {machine()}, onnxruntime {onnxruntime.__version__}."
    parts = [title, about]
    for name, case in gradient.CASES.items():
        if options.only.lower() in name.lower().replace("-", ""):
            parts.append(table(name, case, options.rounds))
            print(parts[-1], flush=True)
    if options.write:
        (HERE / "results" / "excess.md").write_text("\n\n".join(parts) + "\n", "utf-8")


if __name__ == "__main__":
    main()
