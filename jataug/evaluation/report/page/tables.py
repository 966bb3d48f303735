"""The headline, and the tables: attacks, worst cases, what broke the images, transfer."""

from collections.abc import Iterator, Sequence
from typing import cast

from ..contents import AttackRow, ModelReport, Rate, Sanity
from ..wording import THREATS, TOO_FEW, distinct, verdict
from .chart import marker
from .markup import Html, Node, element, joined
from .numbers import NOTHING, budgets, count_of, duration, interval, percent, plain, radius
from .subject import Page, Shown, headline

__all__ = [
    "attack_table",
    "broken_table",
    "cards",
    "legend",
    "scrolling",
    "settings_table",
    "swatch",
    "transfer_table",
    "verdict_badge",
    "worst_table",
]

_OUTSIDE = ("rotation", "all")
_VERDICTS = {
    "pass": ("ok", "✓ sanity checks passed"),
    "suspect": ("bad", "✗ suspect: gradients may be masked"),
    "none": ("unknown", f"{NOTHING} no sanity check was run"),
    "few": ("unknown", f"{NOTHING} sanity checks: {TOO_FEW}"),
}


def scrolling(table: Html, name: str) -> Html:
    """Return a table that scrolls by itself where it is wider than the page."""
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=name)


def swatch(number: int) -> Html:
    """Return the mark of a model."""
    drawn = element("line", x1=0, x2=22, y1=8, y2=8, class_=f"line m{number % 7}")
    box = {"viewBox": "0 0 22 16", "class_": "swatch", "aria_hidden": "true"}
    return element("svg", drawn, marker(number, 11, 8), **box)


def legend(shown: Sequence[Shown]) -> Html | None:
    """Return which mark is which model; nothing where there is one model."""
    if len(shown) < 2:
        return None
    items = [element("li", swatch(one.number), one.model.name) for one in shown]
    return element("ul", items, class_="legend")


def strip(rate: Rate, number: int) -> Html:
    """Return an accuracy and its interval on a line from 0 to 100%."""
    low, value, high = (4 + 112 * share for share in (rate.low, rate.value, rate.high))
    colour = f"m{number % 7}"
    return element(
        "svg",
        element("line", x1=4, x2=116, y1=7, y2=7, class_="grid"),
        element("line", x1=low, x2=high, y1=7, y2=7, class_=f"whisker wide {colour}"),
        element("circle", cx=value, cy=7, r=3.5, class_=f"mark {colour}"),
        viewBox="0 0 120 14", class_="strip", aria_hidden="true",
    )  # fmt: skip


def _accuracy(rate: Rate, number: int) -> list[Node]:
    said = element("small", f"{interval(rate)} · {count_of(rate)}")
    text = element("span", element("b", percent(rate.value)), " ", said)
    return [element("div", text, strip(rate, number), class_="measured")]


def verdict_badge(sanity: Sanity) -> Html:
    """Return the verdict of the sanity checks in a few words."""
    kind, words = _VERDICTS[verdict(sanity)]
    return element("span", words, class_=f"badge {kind}")


def cards(page: Page) -> Html:
    """Return the headline of every model."""
    return element("div", [_card(page, one) for one in page.shown], class_="cards")


def _card(page: Page, one: Shown) -> Html:
    model, worst, clean = one.model, headline(one.model), one.model.clean_accuracy
    said: list[Node] = []
    if worst is None:
        said.append(element("p", NOTHING, class_="big"))
        said.append(element("p", "no attack within the budgets was run", class_="big-label"))
    else:
        rate = worst.accuracy
        said += [
            element("p", percent(rate.value), class_="big"),
            element("p", "worst-case robust accuracy", class_="big-label"),
            element("p", f"95% interval {interval(rate)}; {count_of(rate)} images"),
            strip(rate, one.number),
            element("p", _withstood(page, worst.threat, len(worst.attacks)), class_="quiet"),
        ]
    more = [
        element("p", "clean accuracy ", element("b", percent(clean.value)), " ",
                element("small", f"{interval(clean)} · {count_of(clean)}")),
        element("p", verdict_badge(model.sanity)),
        *(element("p", text, class_="warning") for text in model.warnings),
    ]  # fmt: skip
    heading = element("h3", swatch(one.number), model.name)
    return element("section", heading, element("div", said), element("div", more), class_="card")


def _withstood(page: Page, threat: str, count: int) -> str:
    number = "the one attack" if count == 1 else f"every one of {count} attacks"
    inside = budgets(page.first.flow, page.first.pixel)
    if threat != "joint":
        inside = [text for text in inside if text.startswith(threat)]
    return f"of the images withstand {number} within {' and '.join(inside)}"


def worst_table(page: Page) -> Html:
    """Return the worst case for each kind of change, a column a model."""
    told = {w.threat for one in page.shown for w in distinct(one.model.worst)}
    threats = [threat for threat in THREATS if threat in told]
    rows = [_comparison("none", "clean", page, [o.model.clean_accuracy for o in page.shown])]
    for threat in threats:
        rates = [
            next((w.accuracy for w in one.model.worst if w.threat == threat), None)
            for one in page.shown
        ]
        rows.append(_comparison(threat, f"worst case, {THREATS[threat]}", page, rates))
    return _table(
        ["changes", *(_heading(one) for one in page.shown)], rows, f"threats {_width(page) or ''}"
    )


def _comparison(threat: str, title: str, page: Page, rates: Sequence[Rate | None]) -> Html:
    cells = [
        element("td", _accuracy(rate, one.number) if rate else NOTHING, class_="accuracy")
        for one, rate in zip(page.shown, rates, strict=True)
    ]
    outside = element("small", " outside the budgets") if threat in _OUTSIDE else None
    return element("tr", element("th", title, outside, scope="row"), cells)


def _heading(one: Shown) -> Html:
    return joined(swatch(one.number), one.model.name)


def _width(page: Page) -> str | None:
    return "whole" if len(page.shown) == 1 else None


def _table(heads: Sequence[Node], rows: Sequence[Node], kind: str | None = None) -> Html:
    head = element("tr", [element("th", text, scope="col") for text in heads])
    return element("table", element("thead", head), element("tbody", rows), class_=kind)


_SHOWN_APART = {"steps", "restarts", "branches", "flow_radius", "pixel_radius"}


def attack_table(page: Page) -> Html:
    """Return a row an attack, with what it did to each model, and how long that took."""
    rows = []
    for row in _attacks(page):
        cells: list[Html] = []
        for one in page.shown:
            mine, said = _same(one.model, row), cast("Node", NOTHING)
            if mine is not None:
                said = [_accuracy(mine.accuracy, one.number), element("small", _effort(mine))]
            cells.append(element("td", said, class_="accuracy"))
        cells.append(element("td", THREATS.get(row.threat, row.threat)))
        cells += [
            element("td", plain(row.parameters.get(key, NOTHING)), class_="number")
            for key in ("steps", "restarts")
        ]
        rows.append(element("tr", element("th", row.name, scope="row"), cells))
    heads: list[Node] = ["attack", *(_heading(one) for one in page.shown)]
    return _table([*heads, "changes", "steps", "restarts"], rows, _width(page))


def _effort(row: AttackRow) -> str:
    return f"{duration(row.seconds)} · {row.gradients:.3g} gradients an image"


def settings_table(page: Page) -> Html:
    """Return the settings of every attack, and how far it went."""
    rows = []
    for row in _attacks(page):
        rest = {k: v for k, v in row.parameters.items() if k not in _SHOWN_APART and v}
        same = list(filter(None, (_same(one.model, row) for one in page.shown)))
        flow = max((r.longest_flow for r in same if r.longest_flow is not None), default=None)
        delta = max((r.largest_delta for r in same if r.largest_delta is not None), default=None)
        reached = [NOTHING if flow is None else radius(flow, "pixels"),
                   NOTHING if delta is None else radius(delta, "image")]  # fmt: skip
        cells = [element("td", text) for text in (plain(rest), *reached)]
        rows.append(element("tr", element("th", row.name, scope="row"), cells))
    return _table(["attack", "settings", "longest flow", "largest change"], rows)


def _attacks(page: Page) -> Iterator[AttackRow]:
    """Yield each attack once; the same name with other settings is another attack."""
    seen: list[tuple[str, object]] = []
    for one in page.shown:
        for row in one.model.attacks:
            if (row.name, row.parameters) not in seen:
                seen.append((row.name, row.parameters))
                yield row


def _same(model: ModelReport, row: AttackRow) -> AttackRow | None:
    alike = (r for r in model.attacks if (r.name, r.parameters) == (row.name, row.parameters))
    return next(alike, None)


def broken_table(one: Shown) -> Html:
    """Return which attack broke how many images of a model."""
    images, names = one.model.images, [row.name for row in one.model.attacks]
    rows = [_broken("already wrong", [sum(r.broken_by == "clean" for r in images)], one)]
    for name in names:
        every = sum(name in r.broken for r in images)
        first = sum(r.broken_by == name for r in images)
        alone = sum(list(r.broken) == [name] for r in images)
        rows.append(_broken(name, [every, first, alone], one))
    rows.append(_broken("withstood all", [sum(r.broken_by is None for r in images)], one))
    return _table(["attack", "", "images", "first", "only"], rows)


def _broken(name: str, counts: Sequence[int], one: Shown) -> Html:
    total = len(one.model.images) or 1
    colour = f"m{one.number % 7}"
    bars = [element("rect", x=0, y=2, width=100, height=10, class_="rail")]
    for count, kind in zip(counts[:2], ("all", "first"), strict=False):
        width = 100 * count / total
        bars.append(
            element("rect", x=0, y=2, width=width, height=10, class_=f"bar {kind} {colour}")
        )
    drawn = element("svg", bars, viewBox="0 0 100 14", preserveAspectRatio="none",
                    class_="share", aria_hidden="true")  # fmt: skip
    numbers = [element("td", str(count), class_="number") for count in counts]
    numbers += [element("td", "")] * (3 - len(counts))
    return element("tr", element("th", name, scope="row"), element("td", drawn), numbers)


def transfer_table(one: Shown) -> Html:
    """Return what the adversarial images of a model do to the others."""
    found = one.model.transfer
    targets = list(dict.fromkeys(row.target for row in found))
    rows = []
    for attack in dict.fromkeys(row.attack for row in found):
        mine = {row.target: row for row in found if row.attack == attack}
        direct = next(iter(mine.values())).direct
        cells = [element("td", _short(direct), class_="number")]
        for target in targets:
            said = _short(mine[target].accuracy) if target in mine else NOTHING
            cells.append(element("td", said, class_="number"))
        rows.append(element("tr", element("th", attack, scope="row"), cells))
    clean = {row.target: row.clean for row in found}
    cells = [element("td", _short(one.model.clean_accuracy), class_="number")]
    cells += [element("td", _short(clean[target]), class_="number") for target in targets]
    rows.insert(0, element("tr", element("th", "clean images", scope="row"), cells))
    return _table(["made by", joined(one.model.name, " itself"), *targets], rows)


def _short(rate: Rate) -> list[Node]:
    return [percent(rate.value), " ", element("small", interval(rate))]
