"""Attack an ONNX file with torchattacks.

    pip install "jataug[cpu,torch]" torchattacks
    python examples/attack_onnx_with_torchattacks.py [MODEL.onnx --data IMAGES.npz] [--radius 8/255]

All of its attacks on torch modules work the same way: torchattacks.APGD(model), ...
"""

import torchattacks
from attack_onnx_setup import report, setup

model, images, labels, options = setup(__doc__)
attack = torchattacks.PGD(
    model, eps=options.radius, alpha=options.radius / 4, steps=options.steps, random_start=True
)
report(model, images, attack(images, labels), labels)
