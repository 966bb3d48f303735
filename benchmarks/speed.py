"""Every row of the table in benchmarks/README.md, in one run.

    python benchmarks/speed.py [--rounds 9] [--only gradient attacks]    # prints
    python benchmarks/speed.py --write                                   # and writes the table
    python benchmarks/speed.py --smoke                                   # tiny, for the tests

Its parts are scripts of their own beside this one; each compares within a round, in turns. With
--write a part replaces its rows in benchmarks/results/speed.json as soon as it is done, and the
table is made of all of them.
"""

import argparse
import importlib.metadata
import json
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
RESULTS = HERE / "results" / "speed.json"
BEGIN, END = "<!-- speed.py writes from here -->", "<!-- to here -->"


def rows(part: str, rounds: int, smoke: bool = False) -> Iterator[Row]:
    """Yield the rows of a part."""
    yield from import_module(part).rows(rounds, smoke)


def table(found: dict[str, list[Row]]) -> str:
    """Return the results as Markdown."""
    lines = ["| work | in | measured | bound | by |", "|---|---|---|---|---|"]
    for part in PARTS:
        for row in found.get(part, []):
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
    found = {}
    for part in options.only:
        found[part] = list(rows(part, rounds, options.smoke))
        if options.write and not options.smoke:
            keep(part, found[part], rounds)
    print(table(found))


def keep(part: str, its: list[Row], rounds: int) -> None:
    """Put the rows of a part among the results, and the table of all results on the page."""
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    said = {"machine": machine(), "versions": versions, "rounds": rounds}
    kept[part] = {**said, "rows": [row._asdict() for row in its]}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    all_rows = {name: [Row(**row) for row in made["rows"]] for name, made in kept.items()}
    page = HERE / "README.md"
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{table(all_rows)}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
