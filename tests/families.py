"""Image classifiers of transformers and torchvision, small: name, maker, image size."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LIST", "NEWER", "OLDER", "declare_operators"]


class _Logits(nn.Module):
    """A transformers classifier whose result is the logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        result = self.model(pixel_values=image)
        return result.logits if "logits" in result else result.last_hidden_state


def _transformers(prefix: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        declare_operators()  # transformers imports torchvision where it finds it
        package = importlib.import_module("transformers")
        config = getattr(package, f"{prefix}Config")(num_labels=10, **options)
        return _Logits(getattr(package, f"{prefix}ForImageClassification")(config))

    return make


def _torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A function or a class (named with its module) of torchvision.models."""

    def make() -> nn.Module:
        declare_operators()
        module, _, function = f"torchvision.models.{name}".rpartition(".")
        return getattr(importlib.import_module(module), function)(num_classes=10, **options)

    return make


def _narrow(name: str, features: int) -> Callable[[], nn.Module]:
    """AlexNet and VGG without the 100 million weights of their heads."""

    def make() -> nn.Module:
        module = _torchvision(name)()
        layers = [nn.Linear(features, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10)]
        module.classifier = nn.Sequential(*layers)
        return module

    return make


def _resnet(block: str, **options: Any) -> Callable[[], nn.Module]:
    """A residual network of torchvision with one block a stage."""

    def make() -> nn.Module:
        declare_operators()
        resnet = importlib.import_module("torchvision.models.resnet")
        return resnet.ResNet(getattr(resnet, block), [1, 1, 1, 1], num_classes=10, **options)

    return make


def _regnet(se_ratio: float | None) -> Callable[[], nn.Module]:
    """RegNetX, or RegNetY with squeeze and excitation: six blocks."""

    def make() -> nn.Module:
        declare_operators()
        regnet = importlib.import_module("torchvision.models.regnet")
        blocks = regnet.BlockParams.from_init_params(6, 16, 20, 2.0, 8, se_ratio=se_ratio)
        return regnet.RegNet(blocks, num_classes=10)

    return make


def _convnext() -> nn.Module:
    declare_operators()
    convnext = importlib.import_module("torchvision.models.convnext")
    widths = [(16, 24, 1), (24, 32, 1), (32, None, 1)]
    return convnext.ConvNeXt([convnext.CNBlockConfig(*w) for w in widths], num_classes=10)


def _swin_v2() -> nn.Module:
    declare_operators()
    swin = importlib.import_module("torchvision.models.swin_transformer")
    return swin.SwinTransformer(
        **_SHIFTED,
        num_classes=10,
        block=swin.SwinTransformerBlockV2,
        downsample_layer=swin.PatchMergingV2,
    )


_LIBRARY: list[Any] = []


def declare_operators() -> None:
    """Make torchvision importable beside the CPU's torch.

    Its own kernels, where they are built against CUDA's torch, do not load; its import then wants
    these two names declared. Where they do load, to declare them too ends the process.
    """
    if _LIBRARY or _kernels_load():
        return
    _LIBRARY.append(torch.library.Library("torchvision", "FRAGMENT"))
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            _LIBRARY[0].define(operator + signature)


def _kernels_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for path in Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(path)
        except OSError:
            continue
        return True
    return False


_PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_VIT = {**_PLAIN, "intermediate_size": 64, "patch_size": 8, "image_size": 32}
_CONV = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1]}
_WINDOW = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
_HGNET = {
    "stem_channels": [3, 8, 12],
    "hidden_sizes": [16, 24, 32, 48],
    "depths": [1, 1, 1, 1],
    "stage_in_channels": [12, 16, 24, 32],
    "stage_mid_channels": [8, 8, 12, 16],
    "stage_out_channels": [16, 24, 32, 48],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [2, 2, 2, 2],
}
_SHIFTED = {
    "patch_size": [4, 4],
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": [4, 4],
}

LIST: list[tuple[str, Callable[[], nn.Module], int]] = [
    ("ViT", _transformers("ViT", **_VIT), 32),
    ("ViT-MSN", _transformers("ViTMSN", **_VIT), 32),
    ("DeiT", _transformers("DeiT", **_VIT), 32),
    ("BEiT", _transformers("Beit", **_VIT, use_relative_position_bias=True), 32),
    ("Data2Vec-Vision", _transformers("Data2VecVision", **_VIT), 32),
    ("DINOv2", _transformers("Dinov2", **_PLAIN, patch_size=8, image_size=32), 32),
    (
        "DINOv2 with registers",
        _transformers("Dinov2WithRegisters", **_PLAIN, patch_size=8, image_size=32),
        32,
    ),
    (
        "DINOv2, SwiGLU",
        _transformers("Dinov2", **_PLAIN, patch_size=8, image_size=32, use_swiglu_ffn=True),
        32,
    ),
    ("I-JEPA", _transformers("IJepa", **_VIT), 32),
    ("Swin", _transformers("Swin", **_WINDOW), 64),
    ("Swinv2", _transformers("Swinv2", **_WINDOW), 64),
    ("ConvNeXt", _transformers("ConvNext", **_CONV), 32),
    ("ConvNeXtV2", _transformers("ConvNextV2", **_CONV), 32),
    (
        "PVT",
        _transformers(
            "Pvt",
            image_size=64,
            hidden_sizes=[16, 16, 32, 32],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 2, 2, 4],
        ),
        64,
    ),
    (
        "PVTv2",
        _transformers(
            "PvtV2",
            image_size=64,
            hidden_sizes=[16, 16, 32, 32],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 2, 2, 4],
        ),
        64,
    ),
    (
        "PVTv2, linear attention",
        _transformers(
            "PvtV2",
            image_size=64,
            hidden_sizes=[16, 16, 32, 32],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 2, 2, 4],
            linear_attention=True,
        ),
        64,
    ),
    (
        "LeViT",
        _transformers(
            "Levit",
            image_size=64,
            hidden_sizes=[16, 32, 48],
            num_attention_heads=[2, 2, 2],
            depths=[1, 1, 1],
            key_dim=[8, 8, 8],
        ),
        64,
    ),
    (
        "MobileViT",
        _transformers(
            "MobileViT",
            image_size=64,
            hidden_sizes=[16, 24, 32],
            neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 64],
        ),
        64,
    ),
    ("MobileViTv2", _transformers("MobileViTV2", image_size=64, width_multiplier=0.25), 64),
    (
        "EfficientNet",
        _transformers(
            "EfficientNet",
            image_size=64,
            width_coefficient=0.25,
            depth_coefficient=0.3,
            hidden_dim=320,
        ),
        64,
    ),
    (
        "RegNet",
        _transformers(
            "RegNet",
            embedding_size=8,
            hidden_sizes=[8, 16, 16, 32],
            depths=[1, 1, 1, 1],
            groups_width=8,
        ),
        64,
    ),
    (
        "ResNet",
        _transformers(
            "ResNet", embedding_size=8, hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1]
        ),
        64,
    ),
    (
        "PoolFormer",
        _transformers("PoolFormer", depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 32]),
        64,
    ),
    ("CvT", _transformers("Cvt", embed_dim=[16, 16, 32], num_heads=[1, 2, 2], depth=[1, 2, 3]), 64),
    (
        "FocalNet",
        _transformers(
            "FocalNet",
            image_size=64,
            embed_dim=16,
            depths=[1, 1],
            hidden_sizes=[16, 32],
            focal_levels=[2, 2],
            focal_windows=[3, 3],
        ),
        64,
    ),
    (
        "BiT",
        _transformers(
            "Bit",
            embedding_size=32,
            hidden_sizes=[32, 32, 64, 64],
            depths=[1, 1, 1, 1],
            num_groups=4,
        ),
        64,
    ),
    ("MobileNetV1", _transformers("MobileNetV1", image_size=64, depth_multiplier=0.25), 64),
    (
        "MobileNetV2, TensorFlow padding",
        _transformers("MobileNetV2", image_size=64, depth_multiplier=0.25),
        64,
    ),
    (
        "Hiera",
        _transformers(
            "Hiera", image_size=[64, 64], embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]
        ),
        64,
    ),
    (
        "SwiftFormer",
        _transformers(
            "SwiftFormer", image_size=64, depths=[1, 1, 1, 1], embed_dims=[16, 16, 32, 32]
        ),
        64,
    ),
    (
        "SegFormer",
        _transformers(
            "Segformer",
            hidden_sizes=[8, 16, 16, 32],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=32,
        ),
        64,
    ),
    ("HGNetV2", _transformers("HGNetV2", **_HGNET), 64),
    ("PP-LCNet", _transformers("PPLCNet", scale=0.25), 64),
    ("TextNet", _transformers("TextNet"), 64),
    ("SigLIP", _transformers("Siglip", vision_config=_VIT), 32),
    ("CLIP", _transformers("CLIP", vision_config=_VIT), 32),
    ("AlexNet", _narrow("alexnet", 256 * 36), 64),
    ("VGG11", _narrow("vgg11", 512 * 49), 32),
    ("VGG11, batch norm", _narrow("vgg11_bn", 512 * 49), 32),
    ("Inception v3", _torchvision("inception_v3", init_weights=False, aux_logits=False), 80),
    ("GoogLeNet", _torchvision("googlenet", init_weights=False, aux_logits=False), 64),
    (
        "DenseNet",
        _torchvision("DenseNet", growth_rate=8, block_config=(2, 2, 2), num_init_features=16),
        64,
    ),
    ("ShuffleNetV2 0.5", _torchvision("shufflenet_v2_x0_5"), 64),
    ("SqueezeNet 1.0", _torchvision("squeezenet1_0"), 64),
    ("SqueezeNet 1.1", _torchvision("squeezenet1_1"), 64),
    ("MNASNet 0.5", _torchvision("mnasnet0_5"), 64),
    ("MobileNetV2", _torchvision("mobilenet_v2", width_mult=0.25), 64),
    ("MobileNetV3 small", _torchvision("mobilenet_v3_small"), 64),
    ("MobileNetV3 large", _torchvision("mobilenet_v3_large", width_mult=0.5), 64),
    ("RegNetX", _regnet(None), 64),
    ("RegNetY", _regnet(0.25), 64),
    ("ResNet, basic blocks", _resnet("BasicBlock"), 64),
    ("ResNet, bottlenecks", _resnet("Bottleneck", width_per_group=16), 64),
    ("ResNeXt", _resnet("Bottleneck", groups=32, width_per_group=4), 64),
    ("WideResNet", _resnet("Bottleneck", width_per_group=128), 64),
    ("EfficientNet-B0", _torchvision("efficientnet_b0"), 64),
    ("EfficientNetV2-S", _torchvision("efficientnet_v2_s"), 64),
    ("ConvNeXt, torchvision", _convnext, 64),
    ("Swin, torchvision", _torchvision("SwinTransformer", **_SHIFTED), 64),
    ("SwinV2, torchvision", _swin_v2, 64),
    (
        "ViT, torchvision",
        _torchvision(
            "VisionTransformer",
            image_size=32,
            patch_size=8,
            num_layers=2,
            num_heads=4,
            hidden_dim=32,
            mlp_dim=64,
        ),
        32,
    ),
    (
        "MaxViT",
        _torchvision(
            "MaxVit",
            input_size=(64, 64),
            stem_channels=8,
            partition_size=2,
            block_channels=[8, 16],
            block_layers=[1, 1],
            head_dim=8,
            stochastic_depth_prob=0.1,
        ),
        64,
    ),
]

OLDER = {
    "ViT": 17,
    "DeiT": 14,
    "Swin": 17,
    "ConvNeXt": 16,
    "PVTv2": 17,
    "ResNet": 11,
    "PoolFormer": 13,
    "MobileNetV2": 10,
    "SegFormer": 17,
    "SqueezeNet 1.0": 9,
    "GoogLeNet": 11,
    "DenseNet": 12,
    "SqueezeNet 1.1": 9,
    "MobileNetV3 small": 13,
    "ShuffleNetV2 0.5": 11,
    "ResNeXt": 9,
    "EfficientNet-B0": 15,
    "MaxViT": 17,
}
"""Exported by tracing too, at these opsets."""

NEWER = {"ViT": 23, "ConvNeXtV2": 20, "ResNet, basic blocks": 22, "DINOv2": 21}
"""Exported at these newer opsets too."""
