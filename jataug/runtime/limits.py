"""Checks step counts and radii against what an artifact supports."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from jataug.artifact import Manifest
from jataug.checks import check_integer
from jataug.errors import BudgetError

from .inputs import as_radii

__all__ = ["calls_of", "check_count", "radii_of", "steps_of"]

Radii = NDArray[np.float32]


def steps_of(manifest: Manifest, steps: int | None) -> int:
    """Return the checked number of iterations. Default: the config's.

    Raises:
        BudgetError: it is not an integer >= 0, or the artifact's form has another fixed number.
    """
    config = manifest.config
    if steps is None:
        return config.steps
    given: Any = steps
    steps = int(given) if isinstance(given, np.integer) else given
    check_integer("steps", steps, 0, error=BudgetError)
    if manifest.form != "step" and steps not in (0, config.steps):
        raise BudgetError(
            f"steps: this artifact has the form {manifest.form} with {config.steps} steps, which "
            "is fixed; export the form step to choose at run time"
        )
    return steps


def calls_of(manifest: Manifest, steps: int) -> int:
    """Return the number of calls of the artifact for that many iterations."""
    return max(1, steps // manifest.iterations) if steps else 0


def radii_of(manifest: Manifest, flow: Any, pixel: Any, count: int) -> tuple[Radii, Radii]:
    """Return the checked flow and pixel radii, (batch,) each. Default: the config's.

    Raises:
        BudgetError: a radius is not a number >= 0, or the artifact does not support it.
    """
    config = manifest.config
    found = {
        "flow": as_radii(flow, count, config.flow.radius, "flow"),
        "pixel": as_radii(pixel, count, config.pixel.radius, "pixel"),
    }
    for branch, radii in found.items():
        if branch not in config.branches and radii.any():
            raise BudgetError(
                f"{branch} radius: the artifact was exported without this branch (radius 0); "
                "export it again"
            )
    if (found["flow"] > np.float32(manifest.max_flow_radius)).any():
        raise BudgetError(
            f"flow radius: the artifact serves at most {manifest.max_flow_radius:g} pixels, got "
            f"{found['flow'].max():g}; export it again with a larger --max-flow"
        )
    return found["flow"], found["pixel"]


def check_count(name: str, value: int | None) -> None:
    """Check that a value is None or an integer in [1, 2**31 - 1], the runtimes' limit.

    Raises:
        BudgetError: it is not.
    """
    if value is not None:
        check_integer(name, value, 1, error=BudgetError)
