"""What export_attack takes without its self-check, in torch.onnx.export of the same network.

    python benchmarks/exporting.py [--rounds 3]

A ResNet-50 (25.6 million weights): torch.onnx.export makes the classifier's file from the module,
export_attack the attack's file from that. Each in turn, in one process.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent / "examples")]

import material  # noqa: E402
import onnx  # noqa: E402
import torch  # noqa: E402
from families import declare_operators  # noqa: E402
from timing import Row, interleaved, print_rows, ratios  # noqa: E402

import jataug  # noqa: E402
from jataug.export import export_attack  # noqa: E402

CONFIG = jataug.AttackConfig(flow=jataug.FlowBudget(1.0), pixel=jataug.PixelBudget("8/255"))


def resnet50() -> torch.nn.Module:
    """A ResNet-50 of transformers with random weights."""
    declare_operators()  # transformers imports torchvision where it finds it
    from transformers import ResNetConfig, ResNetForImageClassification

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = ResNetForImageClassification(ResNetConfig(num_labels=1000))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.model(pixel_values=image).logits

    torch.manual_seed(0)
    return Logits().eval()


def rows(rounds: int, smoke: bool = False) -> Iterator[Row]:
    """Yield the row of benchmarks/README.md."""
    module = material.demo_classifier().module if smoke else resnet50()
    example = torch.zeros(2, *((1, 28, 28) if smoke else (3, 224, 224)))
    with tempfile.TemporaryDirectory() as folder:
        source, attack = Path(folder, "model.onnx"), Path(folder, "attack.onnx")

        def by_torch() -> None:
            torch.onnx.export(
                module, (example,), source, dynamo=True, opset_version=18, external_data=False,
                input_names=["image"], output_names=["logits"], verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip

        work = {
            "torch.onnx.export": by_torch,
            "export_attack": lambda: export_attack(source, CONFIG, attack, check=False),
        }
        found = ratios(interleaved(work, rounds), "torch.onnx.export")["export_attack"]
        onnx.checker.check_model(str(attack))
    name = "demo classifier" if smoke else "ResNet-50"
    yield Row(f"export_attack, {name}", "torch.onnx.export", *found, most=0.5)


if __name__ == "__main__":
    print_rows(__doc__, rows, 3)
