"""Networks by name: wide ResNet, a small CNN, ResNet-18, those of timm; any module by its path."""

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..atomic import hash_file
from ..attack.problem import logits_of
from ..errors import MissingExtra, ModelError

__all__ = ["Normalize", "ResNet18", "SmallCNN", "WideResNet", "build", "code_hash"]

_TIMM = "timm:"


def build(
    name: str,
    options: Mapping[str, Any],
    shape: tuple[int, int, int],
    classes: int,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> nn.Module:
    """Return a network from images in [0, 1] to logits.

    Args:
        name: as TrainConfig.model.
        options: keyword arguments of the factory; a network of this module is also given channels
            and classes.
        shape: (channel, height, width) of the images.
        classes: how many logits are expected.
        mean: what is taken off the images first, one number or one per channel.
        std: what they are then divided by.

    Raises:
        ModelError: there is no such network, or it gives no logits (2, classes) for 2 images.
        MissingExtra: it is one of timm, which is not installed.
    """
    network = _made(name, options, shape, classes)
    if any(mean) or any(value != 1 for value in std):
        for what, numbers in (("mean", mean), ("std", std)):
            if len(numbers) not in (1, shape[0]):
                raise ModelError(
                    f"{what}: expected 1 or {shape[0]} numbers (the channels), got {len(numbers)}"
                )
        network = nn.Sequential(Normalize(mean, std), network)
    _check(network, name, shape, classes)
    return network


def _made(
    name: str, options: Mapping[str, Any], shape: tuple[int, int, int], classes: int
) -> nn.Module:
    if name.startswith(_TIMM):
        factory = _of_timm(name, options)
        given = {"in_chans": shape[0], "num_classes": classes, **options}
    elif ":" in name:
        factory, given = _imported(name), dict(options)
    else:
        factory, fixed = _named(name)
        given = {"channels": shape[0], "classes": classes, **fixed, **options}
        if factory is SmallCNN:
            given.setdefault("size", shape[1:])
    try:
        network = factory(**given)
    except (TypeError, ValueError) as error:
        raise ModelError(f"model {name}: {error}; options are --model-option NAME=VALUE") from None
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"model {name}: expected a torch module from it, got {type(network).__name__}"
        )
    return network


def code_hash(name: str) -> str | None:
    """Return the sha256 of the file that a network of one's own is defined in, or the version of
    timm; None for one of this module. What that file imports is not covered.
    """
    if name.startswith(_TIMM):
        return f"timm {metadata.version('timm')}"
    if ":" not in name:
        return None
    try:
        file = inspect.getsourcefile(_imported(name))
    except TypeError:  # it has none
        return None
    return hash_file(Path(file)) if file else None


def _named(name: str) -> tuple[Any, dict[str, Any]]:
    if wide := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        return WideResNet, {"depth": int(wide[1]), "width": int(wide[2])}
    known: dict[str, tuple[Any, dict[str, Any]]] = {
        "small-cnn": (SmallCNN, {}),
        "resnet-18": (ResNet18, {}),
        "resnet-18-imagenet": (ResNet18, {"stem": "imagenet"}),
    }
    if name not in known:
        raise ModelError(
            f"model: expected wrn-DEPTH-WIDTH, {', '.join(known)}, timm:NAME or "
            f"package.module:factory, got {name!r}"
        )
    return known[name]


def _of_timm(name: str, options: Mapping[str, Any]) -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingExtra(
            f"model {name} needs {error.name}, which is not installed: pip install 'jataug[timm]'"
        ) from error
    except RuntimeError as error:  # a torchvision that was built for another torch
        raise ModelError(
            f"model {name}: timm cannot be imported: {error}; install the torchvision that goes "
            f"with torch {torch.__version__}"
        ) from None
    architecture = name.removeprefix(_TIMM)
    if not timm.is_model(architecture):
        raise ModelError(
            f"model {name}: timm has no network {architecture!r}; timm.list_models() lists them"
        )
    if options.get("pretrained"):
        raise ModelError(
            f"model {name}: pretrained is refused, since training downloads nothing; give a "
            ".safetensors file with --init"
        )
    return partial(timm.create_model, architecture)


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"model {path}: cannot be imported: {error}") from None
    if not callable(found):
        raise ModelError(f"model {path}: expected a callable, got {type(found).__name__}")
    return found


@torch.no_grad()
def _check(network: nn.Module, name: str, shape: tuple[int, int, int], classes: int) -> None:
    network.eval()
    try:
        logits = logits_of(network(torch.zeros(2, *shape)))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"model {name}: refuses images of shape {shape}: {reason}") from None
    finally:
        network.train()
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"model {name}: expected a tensor of logits, got a {type(logits).__name__}; wrap it in "
            "a factory that returns the logits alone"
        )
    if tuple(logits.shape) != (2, classes):
        raise ModelError(
            f"model {name}: expected logits (2, {classes}) for 2 images, as the source has "
            f"{classes} classes, got {tuple(logits.shape)}"
        )


class Normalize(nn.Module):
    """(image - mean) / std.

    Args:
        mean: one number, or one per channel.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # Part of the configuration, not of the weights.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the normalized image, in the same shape."""
        return (image - self.mean) / self.std


class SmallCNN(nn.Module):
    """Three 3x3 convolutions, the last two of stride 2, and two linear layers.

    Args:
        channels: of the images.
        classes: of the logits.
        size: (height, width) of the images.
        width: of the first convolution; the others are two and four times as wide.
        hidden: units before the logits.
    """

    def __init__(
        self,
        channels: int = 1,
        classes: int = 10,
        size: tuple[int, int] = (28, 28),
        width: int = 16,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_normed(channels, width, 1),
            *_normed(width, 2 * width, 2),
            *_normed(2 * width, 4 * width, 2),
            nn.Flatten(),
        )
        rows, columns = ((side + 3) // 4 for side in size)
        self.hidden = nn.Linear(4 * width * rows * columns, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits: (batch, classes)."""
        logits: Tensor = self.head(functional.relu(self.hidden(self.features(image))))
        return logits


def _normed(channels: int, width: int, stride: int) -> tuple[nn.Module, ...]:
    return _conv(channels, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()


def _conv(channels: int, width: int, size: int, stride: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, width, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class ResNet18(nn.Module):
    """ResNet-18 (He et al., 2016).

    Args:
        channels: of the images.
        classes: of the logits.
        stem: "cifar", one 3x3 convolution; "imagenet", 7x7 of stride 2 and a max pool.
        width: of the first stage; 64 in the paper.
    """

    def __init__(
        self, channels: int = 3, classes: int = 10, stem: str = "cifar", width: int = 64
    ) -> None:
        super().__init__()
        if stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem: expected cifar or imagenet, got {stem!r}")
        if stem == "cifar":
            self.stem = nn.Sequential(*_normed(channels, width, 1))
        else:
            first = _conv(channels, width, 7, 2), nn.BatchNorm2d(width), nn.ReLU()
            self.stem = nn.Sequential(*first, nn.MaxPool2d(3, 2, padding=1))
        stages, before = [], width
        for number in range(4):
            after = width << number
            stages += [_Basic(before, after, 2 if number else 1), _Basic(after, after, 1)]
            before = after
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(before, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits: (batch, classes)."""
        logits: Tensor = self.head(self.stages(self.stem(image)).mean((2, 3)))
        return logits


class _Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        last = _conv(width, width, 3, 1), nn.BatchNorm2d(width)
        self.inner = nn.Sequential(*_normed(channels, width, stride), *last)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.skip = nn.Sequential(_conv(channels, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.relu(self.inner(hidden) + self.skip(hidden))


class WideResNet(nn.Module):
    """Wide ResNet (Zagoruyko and Komodakis, 2016), activations before convolutions.

    Args:
        channels: of the images.
        classes: of the logits.
        depth: 6 n + 4, with n blocks in each of three stages.
        width: the factor on 16, 32 and 64 channels.
    """

    def __init__(
        self, channels: int = 3, classes: int = 10, depth: int = 28, width: int = 10
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6 or width < 1:
            raise ValueError(f"expected depth 6 n + 4 and width >= 1, got {depth} and {width}")
        self.stem = _conv(channels, 16, 3, 1)
        blocks, before = [], 16
        for number in range(3):
            after = (16 << number) * width
            for block in range((depth - 4) // 6):
                blocks.append(_Wide(before, after, 2 if number and not block else 1))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(before)
        self.head = nn.Linear(before, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits: (batch, classes)."""
        hidden = functional.relu(self.norm(self.blocks(self.stem(image))))
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


class _Wide(nn.Module):
    """Norm, ReLU, convolution, twice, beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.BatchNorm2d(channels), nn.BatchNorm2d(width)
        self.first, self.second = _conv(channels, width, 3, stride), _conv(width, width, 3, 1)
        same = stride == 1 and channels == width
        self.skip = None if same else _conv(channels, width, 1, stride)

    def forward(self, hidden: Tensor) -> Tensor:
        active = functional.relu(self.first_norm(hidden))
        skipped = hidden if self.skip is None else self.skip(active)
        inner: Tensor = self.second(functional.relu(self.second_norm(self.first(active))))
        return skipped + inner
