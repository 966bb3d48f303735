"""The page: its sections, one after the other, in one file that asks for nothing else."""

from collections.abc import Callable, Sequence
from importlib.resources import files

from ..contents import Curve, Minimal, ModelReport
from ..wording import last
from .heat import heat_chart
from .markup import Html, Node, element, joined
from .numbers import budgets
from .pictures import gallery_section
from .series import curve_chart, curve_table, minimal_bars, minimal_chart
from .subject import Page, Shown
from .tables import (
    attack_table,
    broken_table,
    cards,
    legend,
    scrolling,
    settings_table,
    swatch,
    transfer_table,
    verdict_badge,
    worst_table,
)
from .words import provenance, sanity_section

__all__ = ["document"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'"
"""Whatever a name in the report holds: nothing is run and nothing is fetched."""


def document(page: Page) -> str:
    """Return the whole page.

    Raises:
        DataError: a gallery's file is not what its report says.
    """
    first = page.first
    names = [one.model.name for one in page.shown]
    title = f"Robustness of {', '.join(names) if len(names) <= 3 else f'{len(names)} models'}"
    where = str(last(first.source.get("path")) or first.source.get("kind") or "")
    about = f"{first.images} images" + (f" of {where}" if where else "")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Html(_css())),
    )
    header = element(
        "header",
        element("h1", title),
        element("p", about),
        element("p", " · ".join(["Budgets: " + ", ".join(budgets(first.flow, first.pixel)),
                                 f"seed {first.seed}", _time(first.created)])),
    )  # fmt: skip
    sections = [part for make in _SECTIONS for part in (make(page),) if part is not None]
    footer = element(
        "footer",
        element("p", f"jataug {first.jataug}. Every number is in report.json, format version "
                     f"{first.format_version}. Intervals are Wilson score intervals, 95%."),
    )  # fmt: skip
    body = element("body", header, element("main", sections), footer)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _time(created: str) -> str:
    return created.replace("T", " ").replace("+00:00", " UTC")


def _css() -> str:
    return files(__package__).joinpath("style.css").read_text("utf-8")


def _section(name: str, title: str, *parts: Node) -> Html:
    heading = element("h2", title, id=f"{name}-heading")
    return element("section", heading, parts, id=name, aria_labelledby=f"{name}-heading")


def _headline(page: Page) -> Html:
    return _section("headline", "Headline", cards(page))


def _accuracies(page: Page) -> Html:
    note = (
        "Robust accuracy: the share of images still classified as their label; small print, the "
        "95% interval and the count."
    )
    worst = scrolling(worst_table(page), "Worst cases")
    parts: list[Node] = [element("p", note, class_="quiet"), worst]
    if any(one.model.attacks for one in page.shown):
        parts += [
            element("h3", "By attack"),
            scrolling(attack_table(page), "Attacks"),
            _folded("settings", scrolling(settings_table(page), "Settings of the attacks")),
        ]
    return _section("attacks", "Accuracy under attack", parts)


def _curves(page: Page) -> Html | None:
    figures: list[Html] = []
    for branch, budget in (("pixel", page.first.pixel), ("flow", page.first.flow)):
        found: list[tuple[int, ModelReport, Curve]] = []
        for one in page.shown:
            curve: Curve | None = getattr(one.model, f"{branch}_curve")
            if curve is not None and curve.points:
                found.append((one.number, one.model, curve))
        if found:
            drawn = curve_chart(f"{branch}-curve", found, float(budget.get("radius", 0)))
            curve = found[0][2]
            said = f"Accuracy against the {branch} radius, the other radius 0 ({_by(curve)})"
            numbers = scrolling(curve_table(found), said)
            figures.append(_figure(said, drawn, _folded("the numbers", numbers)))
    if not figures:
        return None
    return _section("curves", "Accuracy against the radius", legend(page.shown), _grid(figures))


def _by(curve: Curve) -> str:
    steps = curve.parameters.get("steps")
    return curve.attack if steps is None else f"{curve.attack}, {steps} steps"


def _map(page: Page) -> Html | None:
    figures = []
    flow, pixel = (float(b.get("radius", 0)) for b in (page.first.flow, page.first.pixel))
    for one in page.shown:
        found = one.model.map
        if found is not None and found.flow and found.pixel:
            drawn = heat_chart(f"map-{one.number}", one.model.name, found, flow, pixel)
            figures.append(_figure(_name(one), drawn))
    if not figures:
        return None
    note = "Accuracy in percent under the joint attack; the cell of the budgets is outlined."
    return _section("map", "Flow and pixels together", element("p", note, class_="quiet"),
                    _grid(figures))  # fmt: skip


def _smallest(page: Page) -> Html | None:
    figures = []
    for branch in ("pixel", "flow"):
        found: list[tuple[int, ModelReport, Minimal]] = []
        for one in page.shown:
            minimal: Minimal | None = getattr(one.model, f"minimal_{branch}")
            if minimal is not None:
                found.append((one.number, one.model, minimal))
        if not found:
            continue
        said = f"Images broken within a {branch} radius; marks at the quartiles"
        figures.append(_figure(said, minimal_chart(f"{branch}-ecdf", found)))
        for number, model, minimal in found:
            drawn = minimal_bars(f"{branch}-bars-{number}", number, model, minimal)
            said = f"smallest {branch} radius"
            figures.append(_figure(joined(swatch(number), f"{model.name}: {said}"), drawn))
    if not figures:
        return None
    note = (
        "The smallest radius that breaks each image, of those that are right without attack; the "
        "bar to the right of the largest radius: images that withstood it."
    )
    parts = element("p", note, class_="quiet"), legend(page.shown), _grid(figures)
    return _section("smallest", "The smallest budget that breaks an image", parts)


def _broken(page: Page) -> Html | None:
    if not any(one.model.attacks for one in page.shown):
        return None
    note = (
        "Images that each attack breaks; of these, those that no attack above it broke (first, the "
        "solid part of the bar), and those that no other attack broke (only)."
    )
    tables = _each(page, lambda one: scrolling(broken_table(one), f"Broken, {one.model.name}"))
    return _section("broken", "What broke the images", element("p", note, class_="quiet"),
                    element("div", tables, class_="pairs"))  # fmt: skip


def _each(page: Page, make: Callable[[Shown], Html]) -> list[Html]:
    if len(page.shown) == 1:
        return [make(page.shown[0])]
    return [element("div", element("h3", _name(one)), make(one)) for one in page.shown]


def _gallery(page: Page) -> Html:
    if len(page.shown) == 1:
        return _section("gallery", "Gallery", gallery_section(page, page.shown[0]))
    folded = [
        _folded(_name(one), gallery_section(page, one), open_=not one.number, kind="model")
        for one in page.shown
    ]
    return _section("gallery", "Gallery", folded)


def _name(one: Shown) -> Html:
    return joined(swatch(one.number), one.model.name)


def _sanity(page: Page) -> Html:
    title = "Are the gradients masked?"
    if len(page.shown) == 1:
        return _section("sanity", title, sanity_section(page.shown[0]))
    folded = [
        _folded([_name(one), " ", verdict_badge(one.model.sanity)], sanity_section(one),
                open_=one.model.sanity.verdict != "pass", kind="model")
        for one in page.shown
    ]  # fmt: skip
    return _section("sanity", title, folded)


def _transfer(page: Page) -> Html | None:
    shown = [one for one in page.shown if one.model.transfer]
    if not shown:
        return None
    note = "Accuracy of each model on the adversarial images that were made on one of them."
    tables = [
        element("div", element("h3", "Made on ", _name(one)),
                scrolling(transfer_table(one), f"Transfer from {one.model.name}"))
        for one in shown
    ]  # fmt: skip
    return _section("transfer", "Transfer", element("p", note, class_="quiet"), tables)


def _provenance(page: Page) -> Html:
    return _section("provenance", "How it was made", provenance(page))


_SECTIONS: Sequence[Callable[[Page], Html | None]] = (
    _headline, _accuracies, _curves, _map, _smallest, _broken, _gallery, _sanity, _transfer,
    _provenance,
)  # fmt: skip


def _figure(caption: Node, *drawn: Node) -> Html:
    return element("figure", element("figcaption", caption), drawn)


def _grid(figures: Sequence[Html]) -> Html:
    return element("div", figures, class_="figures")


def _folded(title: Node, *parts: Node, open_: bool = False, kind: str | None = None) -> Html:
    return element("details", element("summary", title), parts, open=open_, class_=kind)
