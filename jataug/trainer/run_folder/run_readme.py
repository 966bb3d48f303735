"""The README of a run's folder: what it is, in words."""

from ..data import TrainData
from ..train_config import TrainConfig

__all__ = ["notes"]


def notes(config: TrainConfig, data: TrainData) -> str:
    """Return the text."""
    attack = config.training_attack
    parts = ", ".join(
        f"{count} {part.name}" for part, count in zip(config.mixture, config.counts, strict=True)
    )
    budgets = (
        f"flow {attack.flow.radius:g} px {attack.flow.norm}, pixel {attack.pixel.radius:.5g} "
        f"{attack.pixel.norm}, {attack.steps} step(s)"
    )
    against = "none, training is natural" if config.mode == "natural" else budgets
    smoothing = f"{config.label_smoothing:g} (convention: {config.convention})"
    run, steps = config.output, data.steps(config.batch_size)
    return f"""# {config.model}, {config.mode} training

A folder of `jataug train`: {len(data.train)} images to train on, {len(data.validation)} held out,
{data.classes} classes, {config.epochs} epochs of {steps} steps, seed {config.seed}.

- Attack while training: {against}.
- A batch of {config.batch_size}: {parts}.
- Label smoothing: {smoothing if config.label_smoothing else "none"}.
- Evaluation: the preset "evaluation", {config.evaluation_steps} steps, on
  {config.evaluation_images} held-out images. A weak estimate that follows the training;
  measure with `jataug evaluate` before you claim anything.

| file | what it is |
|---|---|
| config.json | the whole configuration, the source and its fingerprint |
| environment.json | versions, device, threads, processes |
| metrics.jsonl | a line an epoch: loss, rate, accuracies, seconds |
| curves.png | the same, drawn (where matplotlib is installed) |
| last.safetensors | weights, average, optimizer, random states; position in its JSON header |
| best.safetensors | the weights that did best on the held-out images |

The same command resumes a run that was stopped. What comes out goes on:

    jataug export {run} -o attack.onnx --save-model model.onnx
"""
