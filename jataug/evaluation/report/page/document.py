"""The page: templates/report.html, filled from reports. One file that asks for nothing else."""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, NamedTuple

from ....drawing import confidence, printable
from ..contents import ModelReport, Rate
from ..wording import THREATS, TOO_FEW, is_undecided, verdict, without_folders
from . import words
from .chart import Chart, marker
from .heat import heat_chart
from .numbers import NOTHING, budgets, count_of, duration, interval, percent, plain, radius
from .pictures import pictures_of
from .series import Named, curve_chart, curve_rows, minimal_bars, minimal_chart
from .subject import Page, Shown, headline, same_attack

__all__ = ["document"]

_BETWEEN = re.compile(r"\s*\n\s*")
"""Line breaks of the templates; text of a report has none, as they are spelled out."""


class Curves(NamedTuple):
    """Accuracy against one radius: a chart, and its numbers by radius and model."""

    caption: str
    chart: Chart
    models: list[str]
    rows: list[tuple[str, list[Rate | None]]]


class Smallest(NamedTuple):
    """A chart of smallest radii; `number` is None where it shows all models."""

    caption: str
    chart: Chart
    number: int | None = None


def document(page: Page) -> str:
    """Return the whole page.

    Raises:
        DataError: a gallery's file is not what its report says.
        MissingExtra: Jinja2 is not installed.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        """Spell out what cannot be seen in text; round numbers of the drawing to hundredths."""
        if isinstance(value, float):
            return f"{round(value, 2):g}"
        if value is None:
            return ""
        return value if isinstance(value, Markup) else printable(str(value))

    templates = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    templates.filters |= {
        "confidence": confidence,
        "count_of": count_of,
        "duration": duration,
        "interval": interval,
        "percent": percent,
        "plain": plain,
        "radius": radius,
        "verdict": verdict,
        "without_folders": without_folders,
        "zip": lambda one, other: zip(one, other, strict=False),
    }
    templates.tests["undecided"] = is_undecided
    templates.globals |= {name: getattr(words, name) for name in words.__all__}
    templates.globals |= {
        "NOTHING": NOTHING,
        "THREATS": THREATS,
        "TOO_FEW": TOO_FEW,
        "broken_by": broken_by,
        "budgets": budgets,
        "headline": headline,
        "marker": marker,
        "same_attack": same_attack,
    }
    text = templates.get_template("report.html").render(
        page=page,
        css=Markup("@css@"),
        curves=list(_curves(page)),
        maps=list(_maps(page)),
        smallest=list(_smallest(page)),
        galleries=[(one, pictures_of(one)) for one in page.shown],
    )
    css = files(__package__).joinpath("templates/style.css").read_text("utf-8")
    return f"{_BETWEEN.sub('', text).replace('@css@', css, 1)}\n"


def broken_by(model: ModelReport) -> Iterator[tuple[str, list[int]]]:
    """Yield, for each attack of a model, how many images it broke: all, first, and alone."""
    images = model.images
    yield "already wrong", [sum(row.broken_by == "clean" for row in images)]
    for name in (row.name for row in model.attacks):
        every = sum(name in row.broken for row in images)
        first = sum(row.broken_by == name for row in images)
        alone = sum(list(row.broken) == [name] for row in images)
        yield name, [every, first, alone]
    yield "withstood all", [sum(row.broken_by is None for row in images)]


def _curves(page: Page) -> Iterator[Curves]:
    for branch, budget in (("pixel", page.first.pixel), ("flow", page.first.flow)):
        found: Named = [
            (one.number, one.model, curve)
            for one in page.shown
            if (curve := getattr(one.model, f"{branch}_curve")) is not None and curve.points
        ]
        if not found:
            continue
        curve = found[0][2]
        steps = curve.parameters.get("steps")
        by = curve.attack if steps is None else f"{curve.attack}, {steps} steps"
        yield Curves(
            f"Accuracy against the {branch} radius, the other radius 0 ({by})",
            curve_chart(f"{branch}-curve", found, float(budget.get("radius", 0))),
            [model.name for _, model, _ in found],
            curve_rows(found),
        )


def _maps(page: Page) -> Iterator[tuple[Shown, Chart]]:
    flow, pixel = (float(b.get("radius", 0)) for b in (page.first.flow, page.first.pixel))
    for one in page.shown:
        found = one.model.map
        if found is not None and found.flow and found.pixel:
            yield one, heat_chart(f"map-{one.number}", one.model.name, found, flow, pixel)


def _smallest(page: Page) -> Iterator[Smallest]:
    for branch in ("pixel", "flow"):
        found = [
            (one.number, one.model, minimal)
            for one in page.shown
            if (minimal := getattr(one.model, f"minimal_{branch}")) is not None
        ]
        if not found:
            continue
        yield Smallest(
            f"Images broken within a {branch} radius; marks at the quartiles",
            minimal_chart(f"{branch}-ecdf", found),
        )
        for number, model, minimal in found:
            drawn = minimal_bars(f"{branch}-bars-{number}", number, model, minimal)
            yield Smallest(f"{model.name}: smallest {branch} radius", drawn, number)
