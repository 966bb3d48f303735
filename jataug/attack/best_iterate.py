"""Selects the best iterate of an attack: misclassified first, then the highest ranked objective."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .objective import loss
from .problem import Problem
from .render import State

__all__ = ["Candidate", "better", "judge"]


@dataclass(frozen=True)
class Candidate:
    """A state, with each image's misclassification and loss, both (batch,)."""

    state: State
    wrong: Tensor
    loss: Tensor


def judge(problem: Problem, state: State, logits: Tensor, value: Tensor | None = None) -> Candidate:
    """Return `state` as a candidate. A loss that is not finite never beats a finite one.

    Args:
        problem: the attacked batch.
        state: one iterate.
        logits: (batch, classes), of that iterate.
        value: (batch,), of the reported objective, if it is already computed.
    """
    ranked = problem.config.ranked_objective
    if value is None or ranked != problem.config.reported_objective:
        value = loss(ranked, logits, problem.label, problem.target)
    finite = value.isfinite() & logits.isfinite().all(1)
    wrong = (logits.argmax(1) != problem.label) & finite
    return Candidate(state, wrong, value.where(finite, -torch.inf))


def better(held: Candidate | None, challenger: Candidate) -> Candidate:
    """Return the better of two candidates for each image. A tie goes to `held`, the earlier one."""
    if held is None:
        return challenger
    level = challenger.wrong == held.wrong
    wins = (challenger.wrong & ~held.wrong) | (level & (challenger.loss > held.loss))
    state: State = {
        branch: torch.where(wins.view(-1, 1, 1, 1), value, held.state[branch])
        for branch, value in challenger.state.items()
    }
    return Candidate(
        state,
        torch.where(wins, challenger.wrong, held.wrong),
        torch.where(wins, challenger.loss, held.loss),
    )
