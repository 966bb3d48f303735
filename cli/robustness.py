"""The text that jataug evaluate prints for a model: accuracies and sanity checks."""

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jataug.evaluation.report.contents import ModelReport, Rate, Sanity

__all__ = ["robustness_lines"]

_WIDTH = 80
_VERDICTS = {
    "pass": "passed",
    "suspect": "SUSPECT: gradients may be masked, the accuracies may be too high",
    "none": "none was run",
    "few": "undecided",
}


def robustness_lines(found: "ModelReport", labels: str = "source") -> Iterator[str]:
    """Yield a line for each attack, worst case and check, at most 80 columns wide.

    Args:
        found: the results of one model.
        labels: "source", or "predicted" if labels are the model's own predictions.
    """
    from jataug.evaluation.report.wording import CONSISTENT, THREATS, distinct

    yield f"{found.name}: {found.clean_accuracy.total} images, {found.provider}"
    yield ""
    rows = [("clean", CONSISTENT if labels == "predicted" else "", found.clean_accuracy)]
    rows += [(row.name, THREATS[row.threat], row.accuracy) for row in found.attacks]
    rows += [
        (f"worst of {len(w.attacks)}", THREATS[w.threat], w.accuracy) for w in distinct(found.worst)
    ]
    widths = max(len(name) for name, _, _ in rows), max(len(threat) for _, threat, _ in rows)
    for name, threat, accuracy in rows:
        yield f"  {name:<{widths[0]}}  {threat:<{widths[1]}}  {_rate(accuracy)}"
    yield ""
    yield from _checks(found.sanity)


def _rate(rate: "Rate") -> str:
    return f"{100 * rate.value:5.1f}%  ({100 * rate.low:.1f} - {100 * rate.high:.1f})"


def _checks(sanity: "Sanity") -> Iterator[str]:
    """Yield the verdict and the title of each check, with details of those that failed."""
    from jataug.evaluation.report.wording import is_undecided, verdict

    yield from _wrapped(f"  sanity checks: {_VERDICTS[verdict(sanity)]}", " " * 4)
    undecided = [check for check in sanity.checks if is_undecided(check)]
    if undecided:
        said = undecided[0].detail.partition(";")[0]
        yield from _wrapped(f"    ?     {said} by {len(undecided)} of the checks", " " * 10)
    for check in sanity.checks:
        if check not in undecided:
            sign = {"pass": "ok", "fail": "FAIL", "skipped": "-"}[check.verdict]
            yield from _wrapped(f"    {sign:<4}  {check.title}", " " * 10)
            if check.verdict != "pass":
                yield from _wrapped(f"{' ' * 10}{check.detail}", " " * 10)


def _wrapped(line: str, indent: str) -> list[str]:
    return textwrap.wrap(line, _WIDTH, subsequent_indent=indent, drop_whitespace=True)
