"""Evaluates one model: attacks, curves, checks and warnings, as a ModelReport."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ModelError, UnsupportedOperator
from .attacks.perturbation import Branch
from .attacks.restarts import Attack
from .curves import curve, heat_map, minimal, sweep_curve, sweep_map
from .models.model import Array
from .models.named import NamedModel
from .outcome import Outcome
from .report.contents import Curve, Map, Minimal, ModelReport, Rate, Sanity, Transfer
from .report.gallery import gallery, gallery_arrays
from .report.summary import attack_row, image_rows, rate, worst
from .report.wording import CONSISTENT
from .runner import Clean, Runner
from .sanity import gradients, probes, verdicts, with_head
from .settings import Settings

__all__ = ["MANY", "ModelEvaluation"]

_NAMED = 3
"""The most images that a warning names."""

MANY = "many steps"
"""The probe whose images are tested on the other models."""


@dataclass(frozen=True)
class _Swept:
    pixel_curve: Curve | None = None
    flow_curve: Curve | None = None
    map: Map | None = None
    minimal_pixel: Minimal | None = None
    minimal_flow: Minimal | None = None
    pixel: Array | None = None
    flow: Array | None = None


class ModelEvaluation:
    """One model under evaluation.

    Args:
        named: the model, with its name and origin.
        runner: runs its attacks.
        settings: what to measure.
        others: the models that its adversarial images are tested on, in the runner's order.
    """

    def __init__(
        self, named: NamedModel, runner: Runner, settings: Settings, others: Sequence[NamedModel]
    ) -> None:
        self.named, self._runner, self._settings, self._others = (
            named, runner, settings, others
        )  # fmt: skip
        self.clean: Clean = runner.clean()
        self._refusal = _refusal(named) if self.clean.right.any() else None

    def seen_by(self, other: NamedModel) -> Array:
        """Return another model's predictions for this model's images of many steps: (images,).

        Raises:
            UnsupportedOperator: this model has no gradient.
        """
        outcome = self._probe(
            MANY, *probes(self._settings.suite, self._settings.pixel.radius)[MANY]
        )
        return outcome.transfer[str(self._others.index(other))]

    def _probe(self, name: str, attack: Attack, pixel: float) -> Outcome:
        return self._runner.attack(f"check {name}", attack, self.clean, (0.0, pixel))

    @property
    def attackable(self) -> bool:
        """Whether the model has a gradient."""
        return self._refusal is None

    def report(self, file: str, sources: Mapping[str, "ModelEvaluation"]) -> ModelReport:
        """Return the report of the model, and write the gallery's arrays to `file`.

        Args:
            file: name of the gallery's file.
            sources: other models by name; their adversarial images are tested here.
        """
        runner, clean, named = self._runner, self.clean, self.named
        attacks = {n: a for n, a in self._settings.attacks.items() if self._can(a)}
        outcomes = {name: runner.attack(name, attack, clean) for name, attack in attacks.items()}
        warnings = self._not_finite(outcomes)
        swept, sanity = self._swept(), with_head(self._sanity(sources), self._hidden())
        runner.folder.save(file, gallery_arrays(runner.images, runner.shown, clean, outcomes))
        prepared = named.preprocessing
        radii = self._settings.radii
        return ModelReport(
            name=named.name,
            kind=named.model.kind,
            path=named.path,
            sha256=named.sha256,
            classes=named.model.classes,
            image_shape=tuple(named.model.image_shape),
            preprocessing=prepared.to_dict() if prepared else None,
            provider=named.model.provider,
            clean_accuracy=rate(clean.right),
            attacks=tuple(attack_row(n, a, outcomes[n], clean, radii) for n, a in attacks.items()),
            worst=worst(attacks, outcomes, clean),
            pixel_curve=swept.pixel_curve,
            flow_curve=swept.flow_curve,
            map=swept.map,
            minimal_pixel=swept.minimal_pixel,
            minimal_flow=swept.minimal_flow,
            sanity=sanity,
            transfer=tuple(self._transfers(outcomes)),
            images=image_rows(runner.images, clean, outcomes, swept.pixel, swept.flow),
            gallery=gallery(file, runner.images, runner.shown, clean, outcomes),
            warnings=(*warnings, *self._warnings(sanity)),
        )

    def _can(self, attack: Attack) -> bool:
        return self.attackable or not attack.needs_gradient

    def _swept(self) -> _Swept:
        chosen, runner, clean = self._settings, self._runner, self.clean
        if not chosen.curves or not self.attackable:
            return _Swept()
        found: dict[str, object] = {}
        swept: tuple[tuple[Branch, tuple[float, ...]], ...] = (
            ("pixel", chosen.pixel_radii),
            ("flow", chosen.flow_radii),
        )
        for branch, radii in swept:
            if radii:
                arrays = runner.kept(
                    f"{branch} curve",
                    lambda b=branch, r=radii: sweep_curve(  # type: ignore[misc]
                        runner, clean, b, r, chosen.steps, chosen.rounds
                    ),
                )
                found[f"{branch}_curve"] = curve(branch, radii, arrays, clean, chosen.steps)
                found[f"minimal_{branch}"] = minimal(branch, radii, arrays, clean, chosen.rounds)
                found[branch] = np.where(clean.right, arrays["radius"], np.nan)
        if all(chosen.radii):
            flow, pixel = chosen.map_radii
            arrays = runner.kept("map", lambda: sweep_map(runner, clean, flow, pixel, chosen.steps))
            found["map"] = heat_map(flow, pixel, arrays, chosen.steps)
        return _Swept(**found)  # type: ignore[arg-type]

    def _sanity(self, sources: Mapping[str, "ModelEvaluation"]) -> Sanity:
        chosen, runner, clean = self._settings, self._runner, self.clean
        if not chosen.sanity:
            return Sanity("none", ())
        reason = self._reason()
        if reason is not None:
            return verdicts(clean, {}, None, reason, {})
        tried = probes(chosen.suite, chosen.pixel.radius)
        broken = {
            name: self._probe(name, *probe).broken & clean.right for name, probe in tried.items()
        }
        gradient = runner.kept("check gradient", lambda: gradients(runner, clean))
        transfers = {
            # Predictions are compared with this model's labels. With predicted labels the other
            # model has different ones.
            name: ((source.seen_by(self.named) != clean.label) & clean.right, broken[MANY])
            for name, source in sources.items()
            if source.attackable
        }
        return verdicts(clean, broken, gradient, None, transfers)

    def _reason(self) -> str | None:
        if self._refusal is not None:
            return f"no gradient: {self._refusal}"
        if not self.clean.right.any():
            return "no image is classified right"
        return None if self._settings.pixel.radius else "the pixel radius is 0"

    def _hidden(self) -> str | None:
        """Return what hides the gradient of the logits, or None if nothing is known to."""
        if not self._settings.sanity:
            return None
        if (node := getattr(self.named.model, "hides", None)) is not None:
            return (
                f"the attacked output comes from {node}, whose gradient vanishes where the model "
                "is confident; --outputs probabilities attacks the logits before it"
            )
        logits = self.clean.logits
        whole = bool(logits.min() >= 0) and bool(np.allclose(logits.sum(1), 1, atol=1e-3))
        if not whole:
            return None
        return (
            "the attacked outputs are probabilities (they are >= 0 and sum to 1), whose gradient "
            "vanishes where the model is confident; attack the logits"
        )

    def _transfers(self, outcomes: Mapping[str, Outcome]) -> list[Transfer]:
        found, label = [], self.clean.label
        for k, other in enumerate(self._others):
            before = rate(self.clean.outcome.transfer[str(k)] == label)
            for name, outcome in outcomes.items():
                after = rate(outcome.transfer[str(k)] == label)
                direct: Rate = rate(outcome.prediction == label)
                found.append(Transfer(other.name, other.sha256, name, before, direct, after))
        return found

    def _not_finite(self, outcomes: Mapping[str, Outcome]) -> list[str]:
        """Return warnings about logits that are not finite, for clean and attacked images."""
        failed, found = self.clean.outcome.failed, []
        if failed.any():
            found.append(
                f"the logits of {failed.sum()} clean images are not finite "
                f"({self._names(failed)}); they count as wrong"
            )
        for name, outcome in outcomes.items():
            fresh = outcome.failed & ~failed
            if fresh.any():
                found.append(
                    f"{name}: the logits of {fresh.sum()} attacked images are not finite "
                    f"({self._names(fresh)}); these images stay clean, and the attack on them "
                    "counts as failed"
                )
        return found

    def _names(self, images: Array) -> str:
        held = self._runner.images
        places = np.flatnonzero(images)
        names = [held.source.key(int(held.indices[place])) for place in places[:_NAMED]]
        return ", ".join([*names, "..."] if len(places) > _NAMED else names)

    def _warnings(self, sanity: Sanity) -> list[str]:
        found, clean = [], rate(self.clean.right)
        chance = 1 / self.named.model.classes
        if clean.low <= chance and clean.correct < clean.total:
            better = "no better" if clean.value <= chance else "hardly better"
            found.append(
                f"clean accuracy {clean.value:.1%} is {better} than chance ({chance:.1%}): check "
                "--mean, --std, --scale and --channels, and the order of the classes (--classes)"
            )
        if self._runner.images.labels is None:
            found.append(
                f"the labels are the model's own predictions, so the clean row is {CONSISTENT}, "
                "and a wrong --mean, --std or --scale goes unnoticed"
            )
        if skipped := self._runner.images.skipped:
            found.append(
                f"{len(skipped)} of {len(skipped) + len(self.clean.label)} images could not be "
                f"used and were left out; the first: {skipped[0].reason}"
            )
        if self._refusal is not None:
            found.append(f"only attacks without a gradient were run: {self._refusal}")
        if sanity.verdict == "suspect":
            names = ", ".join(check.name for check in sanity.checks if check.verdict == "fail")
            found.append(
                f"gradients may be masked ({names}), so the model may be less robust than measured"
            )
        if len(self.clean.label) < 100:
            found.append(f"only {len(self.clean.label)} images, so the intervals are wide")
        return found


def _refusal(named: NamedModel) -> str | None:
    """Return why the model has no gradient, or None if it has one."""
    image = np.full((1, *named.model.image_shape), 0.5, np.float32)
    try:
        named.model.gradient(image, np.zeros_like)
    except (ModelError, UnsupportedOperator) as error:
        return str(error)
    return None
