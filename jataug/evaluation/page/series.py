"""Accuracy against one radius, and the smallest radius that breaks each image."""

from bisect import bisect_left
from collections.abc import Sequence

from ..report import Curve, Minimal, ModelReport, Rate
from .chart import SHARES, Axis, Labels, Plot, marker, path, style, svg, ticks
from .markup import Html, Node, element
from .numbers import NOTHING, count_of, interval, percent, radius

__all__ = ["curve_chart", "curve_table", "minimal_bars", "minimal_chart", "radii_of"]

_TITLES = {"image": "pixel radius, levels of 255 (linf)", "pixels": "flow radius, pixels"}
_BINS = 10

Named = Sequence[tuple[int, ModelReport, Curve]]
"""The number of a model (its colour and mark), the model, and a curve of it."""


def _axis(unit: str, top: float) -> Axis:
    shown = 255 * top if unit == "image" else top
    back = 255 if unit == "image" else 1
    return Axis(_TITLES[unit], top, [(value / back, f"{value:g}") for value in ticks(shown)])


def curve_chart(name: str, curves: Named, budget: float) -> Html:
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
    return svg(name, f"Accuracy against the {_TITLES[unit]}", said, drawn)


def _line(plot: Plot, number: int, curve: Curve, aside: float) -> list[Html]:
    colour, dashes = style(number)
    at = [(plot.x(p.radius) + aside, p.accuracy) for p in curve.points]
    drawn = [
        element("line", x1=x, x2=x, y1=plot.y(r.low), y2=plot.y(r.high), class_=f"whisker {colour}")
        for x, r in at
    ]
    line = [(x, plot.y(rate.value)) for x, rate in at]
    drawn.append(path(line, class_=f"line {colour}", stroke_dasharray=dashes))
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


def curve_table(curves: Named) -> Html:
    """Return the numbers of a chart: a row a radius, a column a model."""
    unit = curves[0][2].unit
    radii = sorted({point.radius for _, _, curve in curves for point in curve.points})
    rows = []
    for size in radii:
        cells = []
        for _, _, curve in curves:
            rate = next((p.accuracy for p in curve.points if p.radius == size), None)
            if rate is None:
                cells.append(element("td", NOTHING, class_="number"))
                continue
            said = [percent(rate.value), " ", element("small", interval(rate))]
            cells.append(element("td", said, class_="number"))
        rows.append(element("tr", element("th", radius(size, unit), scope="row"), cells))
    heads = [element("th", model.name, scope="col") for _, model, _ in curves]
    head = element("tr", element("th", "radius", scope="col"), heads)
    return element("table", element("thead", head), element("tbody", rows))


def radii_of(model: ModelReport, unit: str) -> list[float]:
    """Return the smallest radii found, ascending, of the images that are right without attack."""
    rows = [row for row in model.images if row.clean_prediction == row.label]
    found = [row.pixel_radius if unit == "image" else row.flow_radius for row in rows]
    return sorted(size for size in found if size is not None)


def minimal_chart(name: str, models: Sequence[tuple[int, ModelReport, Minimal]]) -> Html:
    """Return the share of images that are broken within each radius, a line a model."""
    unit, top = models[0][2].unit, max(minimal.largest for _, _, minimal in models)
    shares = Axis("images broken", SHARES.top, SHARES.marks)
    plot = Plot(_axis(unit, top), shares)
    drawn = plot.axes()
    for number, model, minimal in models:
        colour, dashes = style(number)
        steps = _steps(plot, radii_of(model, unit), minimal)
        drawn.append(path(steps, class_=f"line {colour}", stroke_dasharray=dashes))
        for share, size in _quartiles(minimal):
            told = f"{model.name}: {share:.0%} of the images within {radius(size, unit)}"
            drawn.append(marker(number, plot.x(size), plot.y(share), told))
    said = "; ".join(f"{model.name}: {_summary(minimal)}" for _, model, minimal in models)
    title = f"Share of images broken within a {_TITLES[unit]}; marks at the quartiles"
    return svg(name, title, said, drawn)


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


def minimal_bars(name: str, number: int, model: ModelReport, minimal: Minimal) -> Html:
    """Return how many images need how large a radius, and how many withstood the largest."""
    unit, radii = minimal.unit, radii_of(model, minimal.unit)
    edges = [minimal.largest * k / _BINS for k in range(_BINS + 1)]
    counts = [0] * _BINS
    for size in radii:
        counts[min(_BINS - 1, max(0, bisect_left(edges, size) - 1))] += 1
    withstood = minimal.total - minimal.found
    most = max([*counts, withstood, 1])
    marks = [(value, f"{value:g}") for value in ticks(most, 5) if value == int(value)]
    # One more bin to the right, for those without a radius.
    stretched = minimal.largest * (_BINS + 1.5) / _BINS
    ruled = _axis(unit, minimal.largest)
    inside = [mark for mark in ruled.marks if mark[0] < 0.95 * minimal.largest]
    axis = Axis(ruled.title, stretched, inside)
    plot = Plot(axis, Axis("images", most * 1.08, marks))
    drawn: list[Node] = [*plot.axes()]
    bin_width = minimal.largest / _BINS
    for k, count in enumerate(counts):
        told = f"{radius(edges[k], unit)} to {radius(edges[k + 1], unit)}: {count} images"
        drawn += _bar(plot, edges[k], bin_width, count, f"bar {style(number)[0]}", told)
    told = f"withstood {radius(minimal.largest, unit)}: {withstood} images"
    drawn += _bar(plot, minimal.largest + bin_width / 2, bin_width, withstood, "bar stood", told)
    if minimal.median is not None:
        drawn += plot.flag(minimal.median, f"median {radius(minimal.median, unit)}")
    beyond, largest = plot.x(minimal.largest + bin_width), minimal.largest
    largest *= 255 if unit == "image" else 1
    right = element("text", f">{largest:.4g}", x=beyond, y=plot.floor + 17, class_="middle tick")
    title = f"{model.name}: images by the smallest {_TITLES[unit]} that breaks them"
    return svg(name, title, _summary(minimal), drawn, right)


def _bar(
    plot: Plot, start: float, width: float, count: int, kind: str, told: str
) -> list[Html | None]:
    left, right, top = plot.x(start) + 1, plot.x(start + width) - 1, plot.y(count)
    if not count:
        return []
    return [
        element(
            "rect", element("title", told), x=left, y=top, width=right - left,
            height=plot.floor - top, class_=kind,
        ),
        element("text", str(count), x=(left + right) / 2, y=top - 4, class_="middle value"),
    ]  # fmt: skip
