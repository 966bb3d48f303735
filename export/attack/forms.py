"""The three forms of the artifact: one step, all steps unrolled, and an ONNX Loop over steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jataug.artifact import Form
from jataug.config import AttackConfig

from ..graph.builder import Graph, Term
from .body import Body, Evaluation, Inputs, State, is_finite

__all__ = ["OUTPUTS", "build"]

OUTPUTS = ("adversarial", "next_flow", "next_delta", "loss", "logits")
"""The names of an artifact's outputs."""

Outputs = dict[str, Term]


def build(
    form: Form,
    body: Callable[[], Body],
    graph: Graph,
    terms: Mapping[str, Term],
    config: AttackConfig,
) -> Outputs:
    """Return the outputs of an artifact by name.

    They are the state after the call, and the loss and logits of the state before it.

    Args:
        form: "step", "unrolled" or "loop".
        body: makes a fresh body. A graph and the body of its Loop need one each.
        graph: the graph that the nodes are added to.
        terms: the graph's inputs by name.
        config: how many steps, and which iterate is kept.
    """
    inputs, state = _inputs(terms), State(terms.get("flow"), terms.get("delta"))
    main = body()
    if form == "step":
        state, incoming = main.iterate(inputs, state)
    elif form == "unrolled":
        state, incoming = _unrolled(main, inputs, state, config)
    else:
        incoming = main.evaluate(inputs, state)
        state = _loop(main, body(), graph, inputs, incoming, config)
    outputs = {"adversarial": main.render(inputs, state)}
    if state.flow is not None:
        outputs["next_flow"] = state.flow
    if state.delta is not None:
        outputs["next_delta"] = state.delta
    return {**outputs, "loss": incoming.loss, "logits": incoming.logits}


def _inputs(terms: Mapping[str, Term]) -> Inputs:
    names = ("flow_radius", "pixel_radius", "flow_step", "pixel_step")
    optional = {name: terms.get(name) for name in names}
    return Inputs(terms["image"], terms["label"], terms["target"], **optional)


@dataclass(frozen=True)
class _Best:
    """The best iterate so far, per image: misclassified first, then the highest loss."""

    state: State
    wrong: Term
    loss: Term


def _candidate(at: Evaluation, inputs: Inputs) -> _Best:
    logits = at.logits
    predicted = logits.graph.op(
        "ArgMax", logits, dtype=np.dtype(np.int64), shape=inputs.label.shape, axis=1, keepdims=0
    )
    right = predicted.equals(inputs.label)
    wrong = right.graph.op("Not", right, dtype=right.dtype, shape=right.shape)
    # An iterate whose logits or loss are not finite never beats another one.
    unsound = (1 - is_finite(logits).cast(np.float32)).max([1], keepdims=False)
    sound = (unsound <= 0.0) & is_finite(at.loss)
    lowest = logits.graph.constant(float(np.finfo(np.float32).min), np.float32)
    loss = at.loss.same("Where", sound, at.loss, lowest)
    return _Best(at.state, (wrong & sound).cast(np.float32), loss)


def _better(best: _Best, new: _Best) -> _Best:
    """Return the better of the two for each image. A tie goes to the earlier one."""
    ahead = (new.wrong > best.wrong).cast(np.float32)
    level = (new.wrong.equals(best.wrong) & (new.loss > best.loss)).cast(np.float32)
    take = (ahead + level) > 0.0

    def pick(mask: Term, yes: Term | None, no: Term | None) -> Term | None:
        return None if yes is None or no is None else yes.same("Where", mask, yes, no)

    image_mask = take.reshape((*(take.shape or ()), 1, 1, 1))
    state = State(
        pick(image_mask, new.state.flow, best.state.flow),
        pick(image_mask, new.state.delta, best.state.delta),
    )
    wrong, loss = pick(take, new.wrong, best.wrong), pick(take, new.loss, best.loss)
    assert wrong is not None
    assert loss is not None
    return _Best(state, wrong, loss)


def _unrolled(
    body: Body, inputs: Inputs, state: State, config: AttackConfig
) -> tuple[State, Evaluation]:
    best, first = None, None
    for _ in range(config.steps):
        state, at = body.iterate(inputs, state)
        first = first or at
        if config.keep == "best":
            candidate = _candidate(at, inputs)
            best = candidate if best is None else _better(best, candidate)
    assert first is not None
    if best is not None:
        state = _better(best, _candidate(body.evaluate(inputs, state), inputs)).state
    return state, first


def _loop(
    outer: Body,
    inner: Body,
    graph: Graph,
    inputs: Inputs,
    start: Evaluation,
    config: AttackConfig,
) -> State:
    """Add a Loop over the iterations. It carries the state, and the best state if that is kept."""
    keep = config.keep == "best"
    carried = _flatten(start.state, _candidate(start, inputs) if keep else None)
    nested = Graph(parent=graph)
    number = nested.input("iteration", np.int64, ())
    going = nested.input("going", bool, ())
    inside = {
        name: nested.input(f"{name}_in", term.dtype, term.shape or ())
        for name, term in carried.items()
    }
    here = _bring(nested, inputs)
    now, kept = _unflatten(inside, keep)
    after, at = inner.iterate(here, now)
    if kept is not None:
        kept = _better(kept, _candidate(at, here))
    results = _flatten(after, kept)
    outputs = {"go_on": going, **{f"{name}_out": term for name, term in results.items()}}
    loop_body = nested.finish([number, going, *inside.values()], outputs, "iteration")
    values = [ir.Value(name=graph.unique(f"{name}_looped")) for name in carried]
    trips = graph.constant(config.steps, np.int64)
    true = graph.constant(True, bool)
    graph.add(
        ir.node(
            "Loop",
            [trips.value, true.value, *(term.value for term in carried.values())],
            {"body": loop_body},
            outputs=values,
        )
    )
    looped = {
        name: Term(graph, value, term.dtype, term.shape)
        for (name, term), value in zip(carried.items(), values, strict=True)
    }
    state, final = _unflatten(looped, keep)
    if final is None:
        return state
    return _better(final, _candidate(outer.evaluate(inputs, state), inputs)).state


def _flatten(state: State, best: _Best | None) -> dict[str, Term]:
    everything = {"flow": state.flow, "delta": state.delta}
    if best is not None:
        everything |= {"best_flow": best.state.flow, "best_delta": best.state.delta}
        everything |= {"best_wrong": best.wrong, "best_loss": best.loss}
    return {name: term for name, term in everything.items() if term is not None}


def _unflatten(terms: Mapping[str, Term], keep: bool) -> tuple[State, _Best | None]:
    state = State(terms.get("flow"), terms.get("delta"))
    if not keep:
        return state, None
    kept = State(terms.get("best_flow"), terms.get("best_delta"))
    return state, _Best(kept, terms["best_wrong"], terms["best_loss"])


def _bring(graph: Graph, inputs: Inputs) -> Inputs:
    """Return the inputs as terms of `graph`, the body of a Loop, which sees its parent's values."""
    fields: dict[str, Any] = {
        name: None if term is None else Term(graph, term.value, term.dtype, term.shape)
        for name, term in vars(inputs).items()
    }
    return Inputs(**fields)
