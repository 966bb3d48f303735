"""Every error that jataug raises on purpose; each is also the builtin it specialises."""

__all__ = [
    "ArtifactError",
    "BudgetError",
    "CheckError",
    "DataError",
    "JataugError",
    "MissingExtra",
    "ModelError",
    "RuntimeUnavailable",
    "UnsupportedOperator",
]


class JataugError(Exception):
    """Base of every deliberate error. The message is one line: expected, got, where, what to do."""


class BudgetError(JataugError, ValueError):
    """A budget, step size or attack option that is outside its domain."""


class ModelError(JataugError, ValueError):
    """A model file that is not a classifier jataug can attack."""


class UnsupportedOperator(JataugError, NotImplementedError):
    """An operator on the path from the image to the loss that has no derivative rule."""


class ArtifactError(JataugError, ValueError):
    """An attack artifact whose manifest and graph disagree, or that is newer than this version."""


class DataError(JataugError, ValueError):
    """Images, labels or data sets that cannot be read, written, or used with the model at hand."""


class RuntimeUnavailable(JataugError, RuntimeError):
    """An inference runtime or an execution provider that was asked for and did not load."""


class CheckError(JataugError, RuntimeError):
    """A result that fails a check: a gradient self-check, or a data set that does not verify."""


class MissingExtra(JataugError, ImportError):
    """An optional package that is not installed; the message says what to install."""
