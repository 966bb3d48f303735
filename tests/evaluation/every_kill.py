"""python every_kill.py PLACE SOURCE: kills of an evaluation; see tests/kills.py."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from kills import main
from torch import nn

from jataug.atomic import write_file
from jataug.evaluation import evaluate, load_report
from jataug.evaluation.report.html import write_html
from jataug.evaluation.report.markdown import markdown

_TIMES = {"created", "seconds"}


def make(source: Path, out: Path) -> None:
    """Evaluate a linear model by two attacks on a few images."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    attacks = ("pgd:steps=1", "joint:steps=1")
    report = evaluate(
        model, source, out, attacks=attacks, curves=False, sanity=False, limit=4, identity="1"
    )
    write_file(out / "report.md", markdown(report).encode())
    write_html(out / "report.json", out / "report.html")


def content(root: Path) -> dict[str, Any]:
    """Return the names of the files, and what the report says but times."""
    found: dict[str, Any] = {str(p.relative_to(root)): p.is_file() for p in root.rglob("*")}
    found["report.json"] = _untimed(load_report(root / "report.json").to_dict())
    return found


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _untimed(part) for name, part in value.items() if name not in _TIMES}
    return [_untimed(part) for part in value] if isinstance(value, list) else value


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(partial(make, Path(sys.argv[2])), content, Path(sys.argv[1]))
