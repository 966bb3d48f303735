import sys
from types import ModuleType

import pytest
import torch
from families import declare_operators

from jataug.errors import MissingExtra, ModelError
from jataug.trainer.models import build, code_hash


def parameters(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "classes", "count"),
    [
        ("wrn-28-10", (3, 32, 32), 10, 36_479_194),  # the papers' figures, from here ...
        ("wrn-16-4", (3, 32, 32), 10, 2_748_890),
        ("resnet-18", (3, 32, 32), 10, 11_173_962),
        ("resnet-18-imagenet", (3, 64, 64), 1000, 11_689_512),  # ... to here
        ("small-cnn", (1, 28, 28), 10, 224_826),
    ],
)
def test_networks_have_their_size(name, shape, classes, count) -> None:
    module = build(name, {}, shape, classes)
    assert parameters(module) == count
    assert module.training


@pytest.mark.parametrize("name", ["wrn-10-1", "small-cnn", "resnet-18"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 30)])
def test_any_image_goes_in(name, shape) -> None:
    options = {"width": 8} if name == "resnet-18" else {}
    module = build(name, options, shape, 4)
    assert module(torch.rand(3, *shape)).shape == (3, 4)


def test_images_are_normalized_inside() -> None:
    torch.manual_seed(0)
    module = build("small-cnn", {}, (3, 8, 8), 5, mean=(0.1, 0.2, 0.3), std=(0.5,)).eval()
    image = torch.rand(2, 3, 8, 8)
    inner = (image - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / 0.5
    assert torch.allclose(module(image), module[1](inner))


def test_options_reach_the_factory() -> None:
    assert parameters(build("trainer_nets:Grouped", {"width": 4}, (1, 8, 8), 3)) == 243
    with pytest.raises(ModelError, match="option"):
        build("trainer_nets:Grouped", {"breadth": 4}, (1, 8, 8), 3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrn-27-10", "depth 6 n"),
        ("vgg", "package.module:factory"),
        ("trainer_nets:missing", "cannot be imported"),
        ("no_such_module:f", "cannot be imported"),
        ("trainer_nets:nothing", "expected a torch module"),
        ("trainer_nets:TwoHeads", "expected a tensor of logits, got a tuple"),
    ],
)
def test_refusals(name, said) -> None:
    with pytest.raises(ModelError, match=said):
        build(name, {}, (1, 8, 8), 3)


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(ModelError, match=r"expected logits \(2, 7\).*got \(2, 3\)"):
        build("trainer_nets:Grouped", {}, (1, 8, 8), 7)


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match=r"refuses images of shape \(3, 8, 8\)"):
        build("trainer_nets:Grouped", {}, (3, 8, 8), 3)


@pytest.fixture
def stub(monkeypatch):
    """A module timm that knows one network."""

    class Timm(ModuleType):
        is_model = staticmethod(lambda name: name == "tiny")

        @staticmethod
        def create_model(name: str, **options):
            return torch.nn.Sequential(
                torch.nn.Conv2d(options["in_chans"], options.get("width", 2), 3),
                torch.nn.AdaptiveAvgPool2d(1),
                torch.nn.Flatten(),
                torch.nn.LazyLinear(options["num_classes"]),
            )

    monkeypatch.setitem(sys.modules, "timm", Timm("timm"))


@pytest.mark.usefixtures("stub")
def test_a_network_of_timm_fits_the_source() -> None:
    module = build("timm:tiny", {"width": 4}, (3, 8, 8), 5)
    assert module[0].weight.shape == (4, 3, 3, 3)
    assert module(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("timm:hf-hub:some/where", {}, "timm has no network 'hf-hub:some/where'"),
        ("timm:tiny", {"pretrained": True}, "downloads nothing"),
    ],
)
def test_timm_is_asked_for_nothing_that_it_would_download(name, options, said) -> None:
    with pytest.raises(ModelError, match=said):
        build(name, options, (3, 8, 8), 5)


def test_without_timm_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"pip install 'jataug\[timm\]'"):
        build("timm:resnet18", {}, (3, 32, 32), 5)


def test_timm_itself() -> None:
    declare_operators()  # it imports torchvision
    pytest.importorskip("timm", reason="the extra timm is not installed", exc_type=ImportError)
    module = build("timm:resnet18", {}, (1, 32, 32), 5)
    assert module(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
    assert code_hash("timm:resnet18").startswith("timm 1.")
