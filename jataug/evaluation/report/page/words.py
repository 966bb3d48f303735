"""The words of the page: sanity checks and verdicts, hashes, versions."""

from collections.abc import Mapping
from typing import Any

from ..contents import ModelReport, Report
from ..wording import TOO_FEW, last
from .numbers import NOTHING, budgets, plain

__all__ = [
    "CHECK_REASONS",
    "CHECK_SIGNS",
    "VERDICTS",
    "VERDICT_BADGES",
    "model_facts",
    "report_facts",
]

CHECK_REASONS = {
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
CHECK_SIGNS = {
    "pass": ("ok", "✓ pass"),
    "fail": ("bad", "✗ FAIL"),
    "skipped": ("unknown", f"{NOTHING} skipped"),
    "few": ("unknown", f"{NOTHING} {TOO_FEW}"),
}
VERDICTS = {
    "pass": "No check found masked gradients. That does not prove that there are none.",
    "suspect": "Suspect: at least one check failed. The accuracies above may flatter the model.",
    "none": "The checks were not run: nothing here speaks against masked gradients.",
    "few": "Too few images to tell: on so few, checks that did not fail mean nothing. Give more.",
}


VERDICT_BADGES = {
    "pass": ("ok", "✓ sanity checks passed"),
    "suspect": ("bad", "✗ suspect: gradients may be masked"),
    "none": ("unknown", f"{NOTHING} no sanity check was run"),
    "few": ("unknown", f"{NOTHING} sanity checks: {TOO_FEW}"),
}


def _of_source(name: str, value: Any) -> str:
    # One of those that were left out is named by a warning; there may be thousands.
    if name == "skipped":
        return str(len(value))
    return plain(last(value) if name == "path" else value)


def report_facts(report: Report) -> Mapping[str, str]:
    """Return what it takes to make a report again."""
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


def model_facts(model: ModelReport) -> Mapping[str, str]:
    """Return what identifies a model."""
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
