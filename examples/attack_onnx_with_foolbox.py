"""Attack an ONNX file with foolbox.

    pip install "jataug[cpu,torch]" foolbox
    python examples/attack_onnx_with_foolbox.py [MODEL.onnx --data IMAGES.npz] [--radius 8/255]

All of its attacks on a PyTorchModel work the same way: foolbox.attacks.L2DeepFoolAttack(), ...
"""

import foolbox
from attack_onnx_setup import report, setup

model, images, labels, options = setup(__doc__)
attacked = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
attack = foolbox.attacks.LinfPGD(rel_stepsize=1 / 4, steps=options.steps)
_, adversarial, _ = attack(attacked, images, labels, epsilons=options.radius)
report(model, images, adversarial, labels)
