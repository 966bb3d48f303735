"""Every row of the table in benchmarks/README.md, in one run.

    python benchmarks/speed.py [--rounds 9] [--only gradient attacks]    # prints
    python benchmarks/speed.py --write                                   # and writes the table
    python benchmarks/speed.py --smoke                                   # tiny, for the tests

Its parts are scripts of their own beside this one; each compares within a round, in turns.
"""

import argparse
import importlib.metadata
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from timing import Row, machine  # noqa: E402

PARTS = ("gradient", "attacks", "pipeline", "memory", "exporting", "evaluating", "engines")
PACKAGES = ("onnxruntime", "torch", "openvino", "numpy")
BEGIN, END = "<!-- speed.py writes from here -->", "<!-- to here -->"


def rows(part: str, rounds: int, smoke: bool = False) -> Iterator[Row]:
    """Yield the rows of a part."""
    yield from import_module(part).rows(rounds, smoke)


def table(found: dict[str, list[Row]], rounds: int) -> str:
    """Return the results as Markdown."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    lines = [
        f"{machine()}; {versions}. Medians of {rounds} rounds [quartiles].",
        "",
        "| work | in | measured | bound | by |",
        "|---|---|---|---|---|",
    ]
    for part, its in found.items():
        for row in its:
            bound = "" if row.most is None else f"at most {row.most:.4g}"
            bound = bound if row.least is None else f"at least {row.least:.4g}"
            bound += {True: ", met", False: ", **not met**", None: ""}[row.met]
            measured = f"{row.median:.2f} [{row.low:.2f}, {row.high:.2f}]"
            lines.append(f"| {row.work} | {row.unit} | {measured} | {bound} | {part}.py |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--write", action="store_true", help="into benchmarks/README.md")
    parser.add_argument("--smoke", action="store_true", help="one round of small models")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rounds = 1 if options.smoke else options.rounds
    found = {part: list(rows(part, rounds, options.smoke)) for part in options.only}
    text = table(found, rounds)
    print(text)
    if options.write and not options.smoke:
        page = HERE / "README.md"
        before, _, rest = page.read_text("utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
