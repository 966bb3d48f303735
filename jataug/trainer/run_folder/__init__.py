"""The folder of a training run: checkpoints, progress, metrics, its README."""
