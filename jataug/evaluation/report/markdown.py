"""A report as Markdown: the tables and the verdicts, for a pull request or a terminal."""

from collections.abc import Iterable, Sequence

from ...units import radius_255
from .contents import AttackRow, Curve, Map, Minimal, ModelReport, Rate, Report, Transfer
from .wording import CONSISTENT, THREATS, distinct, last, verdict, without_folders

__all__ = ["markdown"]


def markdown(report: Report) -> str:
    """Return the report as one Markdown document. The images are in report.html alone."""
    sections = [_head(report), *(_model(model, report.labels) for model in report.models)]
    return "\n\n".join("\n\n".join(part for part in section if part) for section in sections) + "\n"


def _head(report: Report) -> list[str]:
    flow, pixel = report.flow, report.pixel
    what = "as found (float)" if report.measured == "float" else "quantised to 8 bits"
    where = last(report.source.get("path")) or report.source.get("kind")
    rows = [
        ("images", f"{report.images} of {where}"),
        ("budgets", f"flow {flow['radius']:g} px ({flow['norm']}), "
                    f"pixel {radius_255(pixel['radius'])} ({pixel['norm']})"),
        ("measured on", f"images {what}"),
        ("suite", f"{report.suite}, seed {report.seed}"),
        ("made by", f"jataug {report.jataug}, {report.created}"),
        ("command", f"`{without_folders(report.command)}`" if report.command else "Python"),
        ("plan", f"`{report.plan_hash}`"),
        ("versions", ", ".join(f"{k} {v}" for k, v in report.environment.items())),
    ]  # fmt: skip
    return ["# Robustness", _table(("", ""), rows)]


def _model(model: ModelReport, labels: str) -> list[str]:
    return [
        f"## {_plain(model.name)}",
        f"{model.kind}, {model.classes} classes, on {model.provider}"
        + (f"; sha256 `{model.sha256}`" if model.sha256 else ""),
        "\n".join(f"> **Note:** {_plain(warning)}" for warning in model.warnings),
        _attacks(model, labels),
        _checks(model),
        _curve("Accuracy against the pixel radius", model.pixel_curve),
        _curve("Accuracy against the flow radius", model.flow_curve),
        _map(model.map),
        _minimal(model.minimal_pixel, model.minimal_flow),
        _transfer(model.transfer),
    ]


def _attacks(model: ModelReport, labels: str) -> str:
    said = CONSISTENT if labels == "predicted" else ""
    clean = ("clean", said, _rate(model.clean_accuracy), "", "", "")
    rows: list[tuple[str, ...]] = [clean]
    rows += [_attack(row) for row in model.attacks]
    rows += [
        (f"**worst of {len(f.attacks)}**", THREATS[f.threat], _rate(f.accuracy), "", "", "")
        for f in distinct(model.worst)
    ]
    head = ("attack", "may change", "accuracy (95%)", "gradients", "forwards", "seconds")
    return _table(head, rows)


def _attack(row: AttackRow) -> tuple[str, ...]:
    accuracy = _rate(row.accuracy)
    calls = f"{row.gradients:.1f}", f"{row.forwards:.1f}"
    return row.name, THREATS[row.threat], accuracy, *calls, f"{row.seconds:.1f}"


def _checks(model: ModelReport) -> str:
    if not model.sanity.checks:
        return ""
    words = {
        "pass": "no sign of masked gradients",
        "suspect": "**gradients may be masked**",
        "none": "could not be checked",
        "few": "too few images to tell",
    }
    rows = [(c.verdict, c.title, _plain(c.detail)) for c in model.sanity.checks]
    said = words[verdict(model.sanity)]
    return f"### Sanity: {said}\n\n" + _table(("verdict", "should hold", "measured"), rows)


def _curve(title: str, curve: Curve | None) -> str:
    if curve is None:
        return ""
    rows = [(_radius(p.radius, curve.unit), _rate(p.accuracy)) for p in curve.points]
    said = f"### {title}\n\n{curve.attack}, {curve.parameters['steps']} steps\n\n"
    return said + _table(("radius", "accuracy (95%)"), rows)


def _map(found: Map | None) -> str:
    if found is None:
        return ""
    head = ("flow \\ pixel", *(radius_255(radius) for radius in found.pixel))
    rows = [
        (f"{radius:g} px", *(f"{100 * cell.value:.1f}" for cell in cells))
        for radius, cells in zip(found.flow, found.accuracy, strict=True)
    ]
    steps = found.parameters["steps"]
    return f"### Accuracy (%) against both\n\n{found.attack}, {steps} steps\n\n" + _table(
        head, rows
    )


def _minimal(*found: Minimal | None) -> str:
    rows = [
        (one.attack, *(_quartile(one, q) for q in (one.lower_quartile, one.median,
                                                   one.upper_quartile)), f"{one.found}/{one.total}")
        for one in found if one is not None
    ]  # fmt: skip
    if not rows:
        return ""
    head = ("attack", "lower quartile", "median", "upper quartile", "broken")
    return "### Smallest radius that breaks an image\n\n" + _table(head, rows)


def _quartile(found: Minimal, value: float | None) -> str:
    largest = _radius(found.largest, found.unit)
    return f"above {largest}" if value is None else _radius(value, found.unit)


def _transfer(found: Sequence[Transfer]) -> str:
    if not found:
        return ""
    rows = [
        (one.attack, one.target, *map(_rate, (one.direct, one.clean, one.accuracy)))
        for one in found
    ]
    head = ("attack", "tried on", "here", "there, clean", "there, attacked")
    return "### Transfer\n\n" + _table(head, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    return " ".join(text.split())


def _rate(rate: Rate) -> str:
    return f"{100 * rate.value:.1f}% ({100 * rate.low:.1f}-{100 * rate.high:.1f})"


def _radius(value: float, unit: str) -> str:
    return f"{value:.3g} px" if unit == "pixels" else radius_255(value)
