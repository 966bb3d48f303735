"""Read a data set back and say what is wrong with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ...atomic import hash_file
from ...config import AttackConfig
from ...data import ClassOrder, Source, open_source
from ...data.readers.shards import is_pattern
from ...errors import DataError
from ..counts import Progress
from ..open import read_index
from .budget_checks import Budget, BudgetCheck, level_note
from .comparison import Original, Prediction
from .inspection import Inspection

__all__ = ["VerifyReport", "verify"]

Predict = Callable[[Any], Any]


@dataclass(frozen=True)
class VerifyReport:
    """What verify found.

    Attributes:
        images: that were read.
        problems: one line each, with the shard and the key of the image.
        budget: "checked" on every image, "bounded" by a necessary condition (the flow was not
            saved), or "not checked".
        budget_note: why it is not "checked", in a few words; empty where it is.
        worst_pixel_excess: the largest (measured - allowed) distance from the source, image units,
            negative inside the budget; None where it was not checked.
        worst_flow: the longest stored flow vector (l2) or component (linf), pixels; None without
            stored flows.
        adversarial_accuracy: of `model` on the stored files; None without a model.
        changed_predictions: images on which `model` does not say what the records say; None without
            a model.
        attack: the configuration that holds the budgets.
        largest_change: the largest distance from the source in the norm of the pixel budget, image
            units; where the budget is "bounded", of what no flow inside its budget explains.
        allowed_change: what it may be: the radius, and the rounding to 8 bits.
        failed: images that are kept clean, by their records, as logits were not finite.
        level_note: how much of the pixel radius 8-bit images reach, where that is not all of it;
            empty where it is.
    """

    images: int
    problems: tuple[str, ...]
    budget: Budget
    budget_note: str
    worst_pixel_excess: float | None
    worst_flow: float | None
    adversarial_accuracy: float | None
    changed_predictions: int | None
    attack: AttackConfig
    largest_change: float | None
    allowed_change: float | None
    failed: int = 0
    level_note: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    destination: str | PathLike[str],
    source: str | PathLike[str] | Source | None = None,
    model: str | PathLike[str] | Predict | None = None,
    progress: Callable[[Progress], object] | None = None,
    *,
    class_order: ClassOrder | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> VerifyReport:
    """Check hashes, counts, records and labels; with the source also budgets; with a model also
    predictions.

    Args:
        destination: the data set.
        source: where its images came from; by default the path in its index, if that exists.
        model: an attack artifact, or a function from images (batch, height, width, channel), uint8,
            to logits. The artifact that made the data set has to predict what is recorded; others
            are only measured.
        progress: called after every batch.
        class_order: compare the labels with the class folders of the source in this order,
            "natural" or "sorted", instead of the one that the data set was made with.
        device: of a session that is opened for `model`.
        threads: of its runtime; default its own choice.

    Raises:
        DataError: there is no finished data set, it is newer than this version, or the given source
            cannot be read.
    """
    root = Path(destination)
    index = read_index(root)
    original, problem = _original(index, source, class_order)
    plan = index["plan"]
    attack = AttackConfig.from_dict(plan["attack"])
    budgets = BudgetCheck(attack, flow_saved=plan["save_flow"])
    with _prediction(model, plan, device, threads) as prediction:
        inspection = Inspection(root, index, original, prediction, budgets)
        inspection.run(progress)
    return VerifyReport(
        images=inspection.tally.images,
        problems=(*((problem,) if problem else ()), *inspection.problems),
        budget=budgets.mode if original else "not checked",
        budget_note=budgets.note if original else "the source is not at hand",
        worst_pixel_excess=budgets.worst_pixel,
        worst_flow=budgets.worst_flow,
        adversarial_accuracy=prediction.accuracy if prediction else None,
        changed_predictions=prediction.changed if prediction else None,
        attack=attack,
        largest_change=budgets.largest_pixel,
        allowed_change=budgets.allowed_pixel,
        failed=inspection.tally.failed,
        level_note=level_note(attack, float_saved=plan["save_float"]),
    )


def _original(
    index: dict[str, Any],
    given: str | PathLike[str] | Source | None,
    order: ClassOrder | None,
) -> tuple[Original | None, str | None]:
    """Return the source, or None and, where one should be there, what is wrong with it."""
    if given is not None:
        return Original(_opened(given), index["plan"], order), None
    path = index.get("source_path")
    if path is None or not (Path(path).exists() or is_pattern(Path(path))):
        return None, None
    try:
        return Original(_opened(path), index["plan"], order), None
    except DataError as error:
        return None, str(error)


def _opened(source: str | PathLike[str] | Source) -> Source:
    return source if isinstance(source, Source) else open_source(source)


@contextmanager
def _prediction(
    model: str | PathLike[str] | Predict | None,
    plan: dict[str, Any],
    device: str,
    threads: int | None,
) -> Iterator[Prediction | None]:
    if model is None:
        yield None
    elif callable(model):
        yield Prediction(model, strict=False)
    else:
        from ...runtime import Session

        same = hash_file(Path(model)) == plan["artifact"]
        options = {"device": device, "threads": threads, "batch_size": plan["batch_size"]}
        with Session.open(Path(model), **options) as session:
            yield Prediction(session.predict, strict=same)
