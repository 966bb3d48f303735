"""Accuracy against one radius, and the smallest radius that breaks each image."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..contents import Curve, Minimal, ModelReport, Rate
from .chart import SHARES, Axis, Chart, Labels, Plot, Shape, marker, path, shape, style, ticks
from .numbers import count_of, interval, percent, radius

__all__ = ["curve_chart", "curve_rows", "minimal_bars", "minimal_chart", "radii_of"]

_TITLES = {"image": "pixel radius, levels of 255 (linf)", "pixels": "flow radius, pixels"}
_BINS = 10

Named = Sequence[tuple[int, ModelReport, Curve]]
"""The number of a model (its colour and mark), the model, and a curve of it."""


def _axis(unit: str, top: float) -> Axis:
    shown = 255 * top if unit == "image" else top
    back = 255 if unit == "image" else 1
    return Axis(_TITLES[unit], top, [(value / back, f"{value:g}") for value in ticks(shown)])


def curve_chart(name: str, curves: Named, budget: float) -> Chart:
    """Return accuracy against a radius, a line a model, with 95% intervals."""
    unit = curves[0][2].unit
    top = max(curve.points[-1].radius for _, _, curve in curves)
    plot = Plot(_axis(unit, top))
    labels, drawn = Labels(plot), plot.axes()
    if 0 < budget <= top:
        drawn += plot.flag(budget, f"budget {radius(budget, unit)}")
    for place, (number, _, curve) in enumerate(curves):
        # Side by side, so that no interval hides another.
        aside = 4.0 * (place - (len(curves) - 1) / 2) if len(curves) <= 4 else 0.0
        drawn += _line(plot, number, curve, aside)
        for point in curve.points:
            labels.block(plot.x(point.radius), plot.y(point.accuracy.value))
    if len(curves) == 1:
        for point in curves[0][2].points:
            at = plot.x(point.radius), plot.y(point.accuracy.value)
            drawn += filter(None, [labels.place(percent(point.accuracy.value), *at)])
    said = "; ".join(f"{model.name}: {_in_words(curve)}" for _, model, curve in curves)
    return Chart(name, f"Accuracy against the {_TITLES[unit]}", said, drawn)


def _line(plot: Plot, number: int, curve: Curve, aside: float) -> list[Shape]:
    colour, dashes = style(number)
    at = [(plot.x(p.radius) + aside, p.accuracy) for p in curve.points]
    drawn = [
        shape("line", x1=x, x2=x, y1=plot.y(r.low), y2=plot.y(r.high), class_=f"whisker {colour}")
        for x, r in at
    ]
    line = [(x, plot.y(rate.value)) for x, rate in at]
    drawn.append(path(line, f"line {colour}", dashes))
    for (x, rate), point in zip(at, curve.points, strict=True):
        drawn.append(marker(number, x, plot.y(rate.value), _at(point.radius, curve.unit, rate)))
    return drawn


def _at(size: float, unit: str, rate: Rate) -> str:
    return f"{radius(size, unit)}: {percent(rate.value)} ({interval(rate)}, {count_of(rate)})"


def _in_words(curve: Curve) -> str:
    return ", ".join(
        f"{percent(point.accuracy.value)} at {radius(point.radius, curve.unit)}"
        for point in curve.points
    )


def curve_rows(curves: Named) -> list[tuple[str, list[Rate | None]]]:
    """Return the numbers of a chart: for each radius, the accuracy of each model."""
    unit = curves[0][2].unit
    radii = sorted({point.radius for _, _, curve in curves for point in curve.points})
    return [
        (
            radius(size, unit),
            [
                next((p.accuracy for p in curve.points if p.radius == size), None)
                for _, _, curve in curves
            ],
        )
        for size in radii
    ]


def radii_of(model: ModelReport, unit: str) -> list[float]:
    """Return the smallest radii found, ascending, of the images that are right without attack."""
    rows = [row for row in model.images if row.clean_prediction == row.label]
    found = [row.pixel_radius if unit == "image" else row.flow_radius for row in rows]
    return sorted(size for size in found if size is not None)


def minimal_chart(name: str, models: Sequence[tuple[int, ModelReport, Minimal]]) -> Chart:
    """Return the share of images that are broken within each radius, a line a model."""
    unit, top = models[0][2].unit, max(minimal.largest for _, _, minimal in models)
    shares = Axis("images broken", SHARES.top, SHARES.marks)
    plot = Plot(_axis(unit, top), shares)
    drawn = plot.axes()
    for number, model, minimal in models:
        colour, dashes = style(number)
        steps = _steps(plot, radii_of(model, unit), minimal)
        drawn.append(path(steps, f"line {colour}", dashes))
        for share, size in _quartiles(minimal):
            told = f"{model.name}: {share:.0%} of the images within {radius(size, unit)}"
            drawn.append(marker(number, plot.x(size), plot.y(share), told))
    said = "; ".join(f"{model.name}: {_summary(minimal)}" for _, model, minimal in models)
    title = f"Share of images broken within a {_TITLES[unit]}; marks at the quartiles"
    return Chart(name, title, said, drawn)


def _quartiles(minimal: Minimal) -> list[tuple[float, float]]:
    found = (minimal.lower_quartile, minimal.median, minimal.upper_quartile)
    return [(k / 4, size) for k, size in enumerate(found, 1) if size is not None]


def _summary(minimal: Minimal) -> str:
    median = "more than half withstood" if minimal.median is None else (
        f"median {radius(minimal.median, minimal.unit)}"
    )  # fmt: skip
    largest = radius(minimal.largest, minimal.unit)
    return f"{minimal.found} of {minimal.total} images broken up to {largest}, {median}"


def _steps(plot: Plot, radii: list[float], minimal: Minimal) -> list[tuple[float, float]]:
    corners = [(plot.x(0), plot.y(0))]
    for rank, size in enumerate(radii, 1):
        x, y = plot.x(size), plot.y(rank / minimal.total)
        if x - corners[-1][0] >= 0.5:
            corners += [(x, corners[-1][1]), (x, y)]
        else:  # Thousands of images: no step is narrower than can be seen.
            corners[-1] = (corners[-1][0], y)
    return [*corners, (plot.x(minimal.largest), corners[-1][1])]


def minimal_bars(name: str, number: int, model: ModelReport, minimal: Minimal) -> Chart:
    """Return how many images need how large a radius, and how many withstood the largest."""
    unit, width = minimal.unit, minimal.largest / _BINS
    bars = _bins(radii_of(model, unit), minimal, f"bar {style(number)[0]}")
    plot = _bar_plot(minimal, max(1, *(bar.images for bar in bars)))
    drawn = [*plot.axes(), *(_block(plot, bar, width) for bar in bars if bar.images)]
    if minimal.median is not None:
        drawn.extend(plot.flag(minimal.median, f"median {radius(minimal.median, unit)}"))
    drawn += [_count(plot, bar, width) for bar in bars if bar.images]
    beyond = minimal.largest * (255 if unit == "image" else 1)
    x, y = plot.x(minimal.largest + width), plot.floor + 17
    drawn.append(shape("text", f">{beyond:.4g}", x=x, y=y, class_="middle tick"))
    title = f"{model.name}: images by the smallest {_TITLES[unit]} that breaks them"
    return Chart(name, title, _summary(minimal), drawn)


class _Bar(NamedTuple):
    start: float
    images: int
    kind: str
    told: str


def _bins(radii: Sequence[float], minimal: Minimal, kind: str) -> list[_Bar]:
    """Return a bar a bin, and one more for the images without a radius."""
    top, unit = minimal.largest, minimal.unit
    edges = [top * k / _BINS for k in range(_BINS + 1)]
    counts = Counter(min(_BINS - 1, max(0, bisect_left(edges, size) - 1)) for size in radii)
    bars = []
    for k in range(_BINS):
        told = f"{radius(edges[k], unit)} to {radius(edges[k + 1], unit)}: {counts[k]} images"
        bars.append(_Bar(edges[k], counts[k], kind, told))
    stood = minimal.total - minimal.found
    told = f"withstood {radius(top, unit)}: {stood} images"
    return [*bars, _Bar(top + top / _BINS / 2, stood, "bar stood", told)]


def _bar_plot(minimal: Minimal, most: int) -> Plot:
    ruled = _axis(minimal.unit, minimal.largest)
    inside = [mark for mark in ruled.marks if mark[0] < 0.95 * minimal.largest]
    marks = [(value, f"{value:g}") for value in ticks(most, 5) if value == int(value)]
    right = minimal.largest * (_BINS + 1.5) / _BINS
    return Plot(Axis(ruled.title, right, inside), Axis("images", most * 1.08, marks))


def _block(plot: Plot, bar: _Bar, width: float) -> Shape:
    left, right, top = plot.x(bar.start) + 1, plot.x(bar.start + width) - 1, plot.y(bar.images)
    return shape(
        "rect", title=bar.told, x=left, y=top, width=right - left, height=plot.floor - top,
        class_=bar.kind,
    )  # fmt: skip


def _count(plot: Plot, bar: _Bar, width: float) -> Shape:
    x, y = plot.x(bar.start + width / 2), plot.y(bar.images) - 4
    return shape("text", str(bar.images), x=x, y=y, class_="middle value")
