"""Adversarial data sets and live augmentation inside the data loader you already have.

Every module has the same four names, and imports only the framework that it is named after:

    dataset       a generated data set, as that framework's own type
    mixed         clean and adversarial samples, joined by index
    augment       batches attacked, or randomly warped and perturbed, as they come
    RandomJoint   random flow and perturbation of one image, as a transform of that framework
"""
