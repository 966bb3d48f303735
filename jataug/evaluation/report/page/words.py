"""The sections of the page that are mostly words: sanity checks, command, hashes, versions."""

from collections.abc import Mapping
from typing import Any

from ..contents import Check, Report, Sanity
from ..wording import TOO_FEW, is_undecided, last, verdict, without_folders
from .markup import Html, Node, element, joined
from .numbers import NOTHING, budgets, plain
from .subject import Page, Shown
from .tables import scrolling, swatch

__all__ = ["provenance", "sanity_section"]

_REASONS = {
    "gradient": "An attack follows the gradient. Where it is zero or wrong, the attack fails "
    "although an adversarial image is there.",
    "unbounded": "With any change allowed every image can be broken; an attack that does not "
    "manage that is not working.",
    "steps": "More steps search more; if they find less, the attack is not converging.",
    "one-step": "A single step should not find what many steps miss; it does where the gradient "
    "leads astray after the first.",
    "random": "Random changes should find less than directed ones; where they find more, the "
    "direction is useless.",
    "black-box": "An attack that sees only the outputs should find less than one that sees the "
    "gradient; where it finds more, the gradient hides something.",
    "transfer": "Images made on another model should break this one less often than images made "
    "on itself; where they break it more often, its own gradient hides something.",
}
_SIGNS = {
    "pass": ("ok", "✓ pass"),
    "fail": ("bad", "✗ FAIL"),
    "skipped": ("unknown", f"{NOTHING} skipped"),
    "few": ("unknown", f"{NOTHING} {TOO_FEW}"),
}
_VERDICTS = {
    "pass": "No check found masked gradients. That does not prove that there are none.",
    "suspect": "Suspect: at least one check failed. The accuracies above may flatter the model.",
    "none": "The checks were not run: nothing here speaks against masked gradients.",
    "few": "Too few images to tell: on so few, checks that did not fail mean nothing. Give more.",
}


def sanity_section(one: Shown) -> Html:
    """Return the verdict on masked gradients, and every check with its numbers."""
    sanity: Sanity = one.model.sanity
    words = _VERDICTS[verdict(sanity)]
    told = element("p", words, class_=f"verdict {sanity.verdict}")
    checks = element("ul", [_check(check) for check in sanity.checks], class_="checks")
    return element("div", told, checks if sanity.checks else None)


def _check(check: Check) -> Html:
    kind, sign = _SIGNS["few" if is_undecided(check) else check.verdict]
    reason = None if check.verdict == "skipped" else _REASONS.get(check.name)
    return element(
        "li",
        element("p", element("span", sign, class_=f"badge {kind}"), " ",
                element("b", check.title), " ", element("code", check.name)),
        element("p", reason, class_="quiet") if reason else None,
        element("p", check.detail.removeprefix(f"{TOO_FEW}: ")),
    )  # fmt: skip


def provenance(page: Page) -> Html:
    """Return what it takes to make the reports again."""
    parts: list[Node] = []
    for number, report in enumerate(page.reports, 1):
        if len(page.reports) > 1:
            parts.append(element("h3", f"Report {number}"))
        parts.append(_command(report))
        parts.append(_pairs(_facts(report), "Run"))
    for one in page.shown:
        parts.append(element("h3", swatch(one.number), one.model.name))
        parts.append(_pairs(_model_facts(one), one.model.name))
    return joined(parts)


def _command(report: Report) -> Html:
    if report.command is None:
        return element("p", "Made from Python; there is no command.", class_="quiet")
    return element("pre", element("code", without_folders(report.command)), tabindex="0")


def _of_source(name: str, value: Any) -> str:
    # One of those that were left out is named by a warning; there may be thousands.
    if name == "skipped":
        return str(len(value))
    return plain(last(value) if name == "path" else value)


def _facts(report: Report) -> Mapping[str, str]:
    return {
        "made": report.created,
        "jataug": report.jataug,
        "plan, sha256": report.plan_hash,
        "images": f"{report.images}, from the first",
        **{f"source, {key}": _of_source(key, value) for key, value in report.source.items()},
        "labels": {"source": "of the source", "predicted": "the model's own prediction"}[
            report.labels
        ],
        "measured": {"float": "on float images", "uint8": "after rounding to 8 bits"}[
            report.measured
        ],
        "budgets": "; ".join(budgets(report.flow, report.pixel)) or "none",
        "suite": plain(report.suite),
        "seed": str(report.seed),
        **{str(key): plain(value) for key, value in report.environment.items()},
        "format version": str(report.format_version),
    }


def _model_facts(one: Shown) -> Mapping[str, Any]:
    model = one.model
    return {
        "kind": model.kind,
        "file": plain(last(model.path)),
        "sha256": plain(model.sha256),
        "classes": str(model.classes),
        "image (channel, height, width)": " \N{MULTIPLICATION SIGN} ".join(
            str(size) for size in model.image_shape
        ),
        "preprocessing": plain(model.preprocessing),
        "ran on": model.provider,
    }


def _pairs(facts: Mapping[str, str], name: str) -> Html:
    rows = [
        element("tr", element("th", key, scope="row"), element("td", value))
        for key, value in facts.items()
    ]
    return scrolling(element("table", element("tbody", rows), class_="facts"), name)
