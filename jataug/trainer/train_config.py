"""What a training run is: one frozen configuration, readable from JSON."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any, Literal, Self, get_args

from ..budget import FlowBudget, PixelBudget
from ..checks import check_integer
from ..config import AttackConfig
from ..data import Classes, ClassOrder, read_classes
from ..errors import DataError
from ..smoothing import Convention

__all__ = ["UNSAID", "Kind", "Mode", "Part", "Precision", "Schedule", "TrainConfig"]

Mode = Literal["natural", "pixel", "flow", "joint"]
Kind = Literal["clean", "attack", "runtime", "artifact", "dataset"]
Schedule = Literal["constant", "step", "cosine"]
Precision = Literal["float32", "bf16"]

_WITH_PATH = ("artifact", "dataset")

UNSAID = ("model", "epochs", "batch_size", "validation", "label_smoothing", "milestones")
"""The options that are None until a run chooses them (jataug/trainer/defaults.py)."""

_CHOSEN: Any = None


@dataclass(frozen=True)
class Part:
    """A share of every batch.

    Args:
        kind: "clean"; "attack", torch against the current weights; "runtime", ONNX Runtime against
            the current weights; "artifact", an exported attack on a fixed model; "dataset", images
            that `jataug generate` made.
        ratio: the share, above 0; the shares of a mixture add up to 1.
        path: of the artifact or the data set.

    Raises:
        DataError: the kind is unknown, the ratio is not in (0, 1], or the path is missing.
    """

    kind: Kind
    ratio: float = 1.0
    path: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise DataError(
                f"mixture: expected one of {', '.join(get_args(Kind))}, got {self.kind!r}"
            )
        _number("mixture ratio", self.ratio, above=0, most=1)
        if self.kind in _WITH_PATH and not self.path:
            raise DataError(f"mixture: {self.kind} needs a path: {self.kind}:PATH=RATIO")
        if self.kind not in _WITH_PATH and self.path:
            raise DataError(f"mixture: {self.kind} takes no path, got {self.path!r}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the part that "KIND[:PATH][=RATIO]" says, for example "dataset:adv/=0.25".

        Raises:
            DataError: it says none.
        """
        name, equals, ratio = text.rpartition("=")
        kind, _, path = (name if equals else ratio).partition(":")
        try:
            share = float(ratio) if equals else 1.0
        except ValueError:
            raise DataError(f"mixture: expected KIND[:PATH]=RATIO, got {text!r}") from None
        return cls(kind, share, path or None)  # type: ignore[arg-type]  # checked by cls

    @property
    def name(self) -> str:
        """The kind, with the path where there is one."""
        return f"{self.kind}:{self.path}" if self.path else self.kind


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run, whole; equal configurations on one machine give equal weights on the CPU.

    Where model, epochs, batch_size, validation, label_smoothing or milestones are not given, the
    run chooses them: those that it began with, or defaults that fit the source (docs/train.md).
    They are None before.

    Args:
        source: the training images, as `jataug.data.open_source` reads them, with labels.
        output: the run's folder: new, empty, or a run of this configuration, which is resumed.
        model: "wrn-DEPTH-WIDTH", "small-cnn", "resnet-18" (3x3 stem), "resnet-18-imagenet" (7x7
            stem), "timm:NAME" (needs timm), or "package.module:factory", a callable that returns a
            torch module from images in [0, 1] to logits. Default: fits the source.
        model_options: keyword arguments of the factory.
        mean: what is taken off the images before the network, one number or one per channel.
        std: what they are then divided by.
        init: a run or a .safetensors file whose weights are the start.
        mode: "joint", or "pixel" or "flow" (the other radius is 0), or "natural" (no attack).
        attack: the training attack, and the budgets of the evaluation. Default: claim 1, one step.
        mixture: what batches are made of; default the attack alone, clean images for "natural".
        label_smoothing: how much (claim 19). Default 0.5, and 0 for "natural".
        convention: of label smoothing. "authors": the true class gets 1 - s, each other
            s / (K - 1); "torch": the convention of torch.nn.CrossEntropyLoss.
        epochs: passes over the training part. 0 writes a run with the untrained weights. Default:
            fits the source.
        batch_size: over all processes; the rest of an epoch that fills no batch is left out.
            Default: fits the source.
        lr: peak learning rate of SGD.
        momentum: of SGD.
        nesterov: of SGD.
        weight_decay: of SGD, on all parameters.
        schedule: "step" (times `gamma` at each of `milestones`), "cosine" to 0, or "constant".
        milestones: integers are epochs, numbers between 0 and 1 parts of the run. Default
            (0.3, 0.45), which are epochs 60 and 90 of 200.
        gamma: see `schedule`.
        warmup: epochs of linear growth from 0.
        ema: decay of the weight average that is evaluated and kept; 0 for none.
        clip: largest norm of the gradient; None for no limit.
        pad: random crop after padding by so many zeros a side; 0 for none.
        flip: random horizontal flip.
        resize: the shorter side of source images, pixels (before `crop`).
        crop: the centre that is cut out of source images.
        class_order: how class folders are numbered, "natural" (1, 2, 10) or "sorted" (1, 10, 2, as
            torchvision, Keras and Hugging Face do); has to be said where the two differ.
        limit: use the first so many images of the source.
        classes: the network's class of each class name of the source: a text file with a name a
            line, JSON {name: class}, or a mapping, which is what is kept. Default: the order of the
            source's own classes.
        validation: images held out of training, drawn by the seed. Default: a tenth of the
            source, at most 1000.
        evaluation_images: of those, how many are attacked after an epoch.
        evaluation_steps: iterations of that attack (the preset "evaluation").
        evaluate_every: epochs; the last is always evaluated.
        seed: of the weights, the order, the crops, the attacks.
        device: "auto", "cpu", "cuda" or "cuda:<i>".
        precision: "bf16" runs the network under autocast.
        channels_last: the memory format of network and images.
        compile: torch.compile the network.
        sync_batch_norm: batch statistics over all processes; CUDA only.
        workers: threads that read images which do not fit into memory.
        checkpoint_steps: save every so many steps, besides the end of every epoch; 0 for never.
        tensorboard: write event files too.
        smoothing: deprecated, the old name of `convention`.

    Raises:
        DataError: an option is outside its domain; the message names it.
    """

    source: str
    output: str
    model: str = _CHOSEN
    model_options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    init: str | None = None
    mode: Mode = "joint"
    attack: AttackConfig = field(default_factory=lambda: AttackConfig(steps=1))
    mixture: tuple[Part, ...] = ()
    label_smoothing: float = _CHOSEN
    convention: Convention = "authors"
    epochs: int = _CHOSEN
    batch_size: int = _CHOSEN
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 2e-4
    schedule: Schedule = "step"
    milestones: tuple[float, ...] = _CHOSEN
    gamma: float = 0.1
    warmup: float = 0.0
    ema: float = 0.0
    clip: float | None = None
    pad: int = 4
    flip: bool = True
    resize: int | None = None
    crop: int | tuple[int, int] | None = None
    class_order: ClassOrder | None = None
    limit: int | None = None
    classes: Classes = None
    validation: int = _CHOSEN
    evaluation_images: int = 500
    evaluation_steps: int = 10
    evaluate_every: int = 1
    seed: int = 0
    device: str = "auto"
    precision: Precision = "float32"
    channels_last: bool = False
    compile: bool = False
    sync_batch_norm: bool = False
    workers: int = 2
    checkpoint_steps: int = 0
    tensorboard: bool = False
    smoothing: InitVar[Convention | None] = None

    def __post_init__(self, smoothing: Convention | None) -> None:
        if smoothing is not None:
            message = "TrainConfig(smoothing=...) is deprecated: write convention=..."
            warnings.warn(message, DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "convention", smoothing)
        for name in ("source", "output"):
            object.__setattr__(self, name, str(getattr(self, name)))
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in get_args(choices):
                expected = ", ".join(get_args(choices))
                raise DataError(f"{name}: expected one of {expected}, got {value!r}")
        said = {*vars(self)} - {name for name in UNSAID if getattr(self, name) is None}
        for name, least in _INTEGERS.items():
            if name in said:
                most = 2**64 - 1 if name == "seed" else 2**31 - 1
                check_integer(name, getattr(self, name), least, most)
        for name, bounds in _NUMBERS.items():
            if name in said:
                _number(name, getattr(self, name), **bounds)
        for name in ("mean", "std", "milestones", "mixture", "crop"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if self.classes is not None:
            object.__setattr__(self, "classes", read_classes(self.classes))
        if self.clip is not None:
            _number("clip", self.clip, above=0)
        if self.class_order not in (None, *get_args(ClassOrder)):
            raise DataError(f"class_order: expected natural or sorted, got {self.class_order!r}")
        if self.limit is not None:
            check_integer("limit", self.limit, 1)
        if min(self.std, default=0) <= 0:
            raise DataError("std: expected numbers above 0")
        if self.compile and self.attack.simultaneous:
            raise DataError("compile: expected an attack without simultaneous, got one with it")
        if "milestones" in said:
            _check_milestones(self.milestones)
        if "validation" in said and self.evaluation_images > self.validation:
            object.__setattr__(self, "evaluation_images", self.validation)
        self._check_mixture("batch_size" in said)

    def _check_mixture(self, counted: bool) -> None:
        if not self.mixture:
            alone = Part("clean" if self.mode == "natural" else "attack")
            object.__setattr__(self, "mixture", (alone,))
        total = math.fsum(part.ratio for part in self.mixture)
        if abs(total - 1) > 1e-6:
            raise DataError(f"mixture: expected ratios that add up to 1, got {total:g}")
        if len({part.name for part in self.mixture}) != len(self.mixture):
            raise DataError("mixture: expected each part once")
        if self.mode == "natural" and any(part.kind != "clean" for part in self.mixture):
            raise DataError("mode natural: expected clean batches alone; choose another mode")
        if self.mode != "natural" and not self.training_attack.branches:
            raise DataError(f"mode {self.mode}: expected a budget above 0, got flow and pixel 0")
        counts = self.counts if counted else [1] * len(self.mixture)
        if empty := [p.name for p, n in zip(self.mixture, counts, strict=True) if not n]:
            raise DataError(
                f"mixture: {empty[0]} gets no image of a batch of {self.batch_size}; raise its "
                "ratio or the batch size"
            )

    @property
    def training_attack(self) -> AttackConfig:
        """The attack of this mode: `attack`, with the radius that the mode leaves out set to 0."""
        flow, pixel = self.attack.flow, self.attack.pixel
        if self.mode == "pixel":
            flow = FlowBudget(0, flow.norm)
        if self.mode == "flow":
            pixel = PixelBudget(0, pixel.norm)
        return self.attack.replace(flow=flow, pixel=pixel)

    @property
    def evaluation_attack(self) -> AttackConfig:
        """What the network is measured with: the preset "evaluation" in the mode's budgets."""
        mine = self.training_attack
        return AttackConfig.preset(
            "evaluation", flow=mine.flow, pixel=mine.pixel, steps=self.evaluation_steps
        )

    @property
    def counts(self) -> tuple[int, ...]:
        """How many images of a batch each part of the mixture gets: largest remainders."""
        exact = [part.ratio * self.batch_size for part in self.mixture]
        counts = [math.floor(value + 1e-9) for value in exact]
        order = sorted(range(len(exact)), key=lambda k: counts[k] - exact[k])
        for k in order[: self.batch_size - sum(counts)]:
            counts[k] += 1
        return tuple(counts)

    def replace(self, **options: Any) -> Self:
        """Return a copy with `options` changed."""
        return dataclasses.replace(self, **options)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            DataError: a key is unknown, or a value is outside its domain.
        """
        # 0.1 called the convention smoothing.
        data = {"convention" if name == "smoothing" else name: v for name, v in data.items()}
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise DataError(f"training configuration: unknown key {unknown[0]!r}")
        options = dict(data)
        try:
            options["attack"] = AttackConfig.from_dict(options["attack"])
            options["mixture"] = tuple(Part(**part) for part in options["mixture"])
            return cls(**options)
        except (KeyError, TypeError) as error:
            raise DataError(f"training configuration: cannot be read: {error}") from None


_CHOICES = {"mode": Mode, "convention": Convention, "schedule": Schedule, "precision": Precision}
_INTEGERS = {
    "epochs": 0,
    "batch_size": 1,
    "pad": 0,
    "validation": 0,
    "evaluation_images": 0,
    "evaluation_steps": 0,
    "evaluate_every": 1,
    "seed": 0,
    "workers": 1,
    "checkpoint_steps": 0,
}
_NUMBERS: dict[str, dict[str, float]] = {
    "label_smoothing": {"least": 0, "below": 1},
    "lr": {"above": 0},
    "momentum": {"least": 0, "below": 1},
    "weight_decay": {"least": 0},
    "gamma": {"above": 0},
    "warmup": {"least": 0},
    "ema": {"least": 0, "below": 1},
}


def _check_milestones(milestones: tuple[float, ...]) -> None:
    for value in milestones:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            continue
        if not isinstance(value, float) or not 0 < value < 1:
            raise DataError(
                "milestones: expected epochs (integers) or parts of the run (between 0 and 1), got "
                f"{value!r}"
            )


def _number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and math.isfinite(value) and least <= value <= most and above < value < below:
        return
    bounds = {">=": least, ">": above, "<": below, "<=": most}
    said = " and ".join(f"{sign} {b:g}" for sign, b in bounds.items() if math.isfinite(b))
    raise DataError(f"{name}: expected a number {said}, got {value!r}")
