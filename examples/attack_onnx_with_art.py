"""Attack an ONNX file with the Adversarial Robustness Toolbox.

    pip install "jataug[cpu,torch]" adversarial-robustness-toolbox
    python examples/attack_onnx_with_art.py [MODEL.onnx --data IMAGES.npz] [--radius 8/255]

All of its attacks on a PyTorchClassifier work the same way. The classifier gets no optimizer,
because an ONNX file has nothing to train.
"""

import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from attack_onnx_setup import report, setup

model, images, labels, options = setup(__doc__)
classifier = PyTorchClassifier(
    model,
    loss=torch.nn.CrossEntropyLoss(),
    input_shape=model.input_shape,
    nb_classes=model.output_shape[0],
    clip_values=(0, 1),
    device_type="cpu",
)
attack = ProjectedGradientDescent(
    classifier,
    eps=options.radius,
    eps_step=options.radius / 4,
    max_iter=options.steps,
    verbose=False,
)
adversarial = attack.generate(images.numpy(), labels.numpy())
report(model, images, torch.from_numpy(adversarial), labels)
