"""Attack an ONNX file with AutoAttack.

    pip install "jataug[cpu,torch]" pyautoattack
    python examples/attack_onnx_with_autoattack.py [MODEL.onnx --data IMAGES.npz] [--radius 8/255]

The script runs the standard version: APGD-CE, targeted APGD, targeted FAB, and Square on the images
that survive them, with AutoAttack's own numbers of steps. The package is the authors' code on PyPI.
"""

from attack_onnx_setup import report, setup
from pyautoattack import AutoAttack

model, images, labels, options = setup(__doc__)
attack = AutoAttack(model, norm="Linf", eps=options.radius, version="standard", seed=0)
adversarial, _ = attack.run_standard_evaluation(images, labels, batch_size=64)
report(model, images, adversarial, labels)
