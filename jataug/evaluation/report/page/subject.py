"""What the page is about: models, the reports they are from, and where their pictures lie."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ....errors import DataError
from ..contents import AttackRow, ModelReport, Report, Threat, Worst
from ..wording import CONSISTENT, THREATS, distinct, last
from .numbers import NOTHING, budgets, plain, radius

__all__ = ["Page", "Shown", "headline", "same_attack"]

_SHOWN_APART = {"steps", "restarts", "branches", "flow_radius", "pixel_radius"}
"""Settings that have a column of their own."""

_SAME = ("images", "labels", "measured", "flow", "pixel", "class_names")


@dataclass(frozen=True)
class Shown:
    """One model of the page.

    Attributes:
        number: its colour and mark.
        model: what was measured, its name unique in the page.
        report: that it is from.
        folder: of the gallery's file, if there is one.
    """

    number: int
    model: ModelReport
    report: Report
    folder: Path | None


class Page:
    """Models that can stand side by side: the same images, budgets and labels.

    Args:
        found: reports, and the folders of their galleries.

    Raises:
        DataError: the reports cannot be compared.
    """

    def __init__(self, found: Sequence[tuple[Report, Path | None]]) -> None:
        if not found:
            raise DataError("reports: expected at least one, got none")
        self.reports = [report for report, _ in found]
        for other in self.reports[1:]:
            _check_alike(self.reports[0], other)
        self.shown = list(_named(found))

    @property
    def first(self) -> Report:
        """The report that says which images and budgets there are."""
        return self.reports[0]

    @property
    def title(self) -> str:
        """The title of the page."""
        names = [one.model.name for one in self.shown]
        return f"Robustness of {', '.join(names) if len(names) <= 3 else f'{len(names)} models'}"

    @property
    def source(self) -> str:
        """Where the images are from, without the folders it lies in; empty where unknown."""
        source = self.first.source
        return str(last(source.get("path")) or source.get("kind") or "")

    @property
    def threats(self) -> list[Threat]:
        """The kinds of change whose worst case is worth a row."""
        told = {worst.threat for one in self.shown for worst in distinct(one.model.worst)}
        return [threat for threat in THREATS if threat in told]

    @property
    def attacks(self) -> list[AttackRow]:
        """Each attack once; the same name with other settings is another attack."""
        found: list[AttackRow] = []
        for one in self.shown:
            found += [row for row in one.model.attacks if not any(_same(row, f) for f in found)]
        return found

    def budgets_of(self, threat: str) -> list[str]:
        """Return the budgets that bound a kind of change."""
        inside = budgets(self.first.flow, self.first.pixel)
        return [text for text in inside if threat == "joint" or text.startswith(threat)]

    def settings_of(self, row: AttackRow) -> list[str]:
        """Return the settings of an attack, its longest flow and its largest change."""
        rest = {k: v for k, v in row.parameters.items() if k not in _SHOWN_APART and v}
        same = [found for one in self.shown if (found := same_attack(one.model, row))]
        flow = max((r.longest_flow for r in same if r.longest_flow is not None), default=None)
        delta = max((r.largest_delta for r in same if r.largest_delta is not None), default=None)
        return [
            plain(rest),
            NOTHING if flow is None else radius(flow, "pixels"),
            NOTHING if delta is None else radius(delta, "image"),
        ]

    def clean_title(self, title: str) -> str:
        """Return what the clean row is called: no accuracy where labels are predictions."""
        return f"clean ({CONSISTENT})" if self.first.labels == "predicted" else title

    def class_name(self, number: int) -> str:
        """Return the name of a class, "class 7" where it has none."""
        names = self.first.class_names or {}
        return names.get(str(number), f"class {number}" if number >= 0 else "not finite")


def headline(model: ModelReport) -> Worst | None:
    """Return the worst case inside the budgets, or None where no attack within them was run."""
    by_threat = {worst.threat: worst for worst in model.worst}
    threats = ("joint", "pixel", "flow")
    return next((by_threat[threat] for threat in threats if threat in by_threat), None)


def same_attack(model: ModelReport, row: AttackRow) -> AttackRow | None:
    """Return a model's row of the same attack with the same settings, or None."""
    return next((found for found in model.attacks if _same(found, row)), None)


def _same(one: AttackRow, other: AttackRow) -> bool:
    return (one.name, one.parameters) == (other.name, other.parameters)


def _named(found: Sequence[tuple[Report, Path | None]]) -> Iterator[Shown]:
    taken: set[str] = set()
    number = 0
    for report, folder in found:
        for model in report.models:
            name, copy = model.name, 2
            while name in taken:
                name, copy = f"{model.name} ({copy})", copy + 1
            taken.add(name)
            yield Shown(number, replace(model, name=name), report, folder)
            number += 1


def _check_alike(first: Report, other: Report) -> None:
    for name in _SAME:
        here, there = getattr(first, name), getattr(other, name)
        if here != there:
            raise DataError(
                f"reports: expected the same {name} in all, got {_short(here)} and {_short(there)}"
            )
    prints = [_fingerprint(report.source) for report in (first, other)]
    if prints[0] != prints[1]:
        raise DataError(
            "reports: expected the same images in all, got sources with the fingerprints "
            f"{prints[0]} and {prints[1]}"
        )


def _fingerprint(source: Mapping[str, Any]) -> Any:
    return source.get("fingerprint", source)


def _short(value: Any) -> str:
    text = str(dict(value) if isinstance(value, Mapping) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
