"""Attack an ONNX file with AutoAttack.

    pip install "jataug[cpu,torch]" pyautoattack
    python examples/attack_onnx_with_autoattack.py [MODEL.onnx --data IMAGES.npz] [--radius 8/255]

The standard version: APGD-CE, targeted APGD and FAB, and Square on what survives those; the number
of steps is theirs. The package is the authors' own code, as on PyPI.
"""

from attack_onnx_setup import report, setup
from pyautoattack import AutoAttack

model, images, labels, options = setup(__doc__)
attack = AutoAttack(model, norm="Linf", eps=options.radius, version="standard", seed=0)
adversarial, _ = attack.run_standard_evaluation(images, labels, batch_size=64)
report(model, images, adversarial, labels)
