"""All errors that jataug raises on purpose. Each is also the builtin error that it specialises."""

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
    """Base of all errors. The message is one line: what is wrong, where, and what to do."""


class BudgetError(JataugError, ValueError):
    """A budget, a step size or an attack option is outside its domain."""


class ModelError(JataugError, ValueError):
    """A model is not a classifier that jataug can attack."""


class UnsupportedOperator(JataugError, NotImplementedError):
    """An operator between the image and the loss has no derivative rule."""


class ArtifactError(JataugError, ValueError):
    """A file is no attack artifact, is damaged or edited, or is newer than this version."""


class DataError(JataugError, ValueError):
    """Images, labels or a data set cannot be read, written, or used with the model."""


class RuntimeUnavailable(JataugError, RuntimeError):
    """A requested inference runtime or execution provider is not available."""


class CheckError(JataugError, RuntimeError):
    """A result fails a check: a wrong gradient, or a data set that does not verify."""


class MissingExtra(JataugError, ImportError):
    """An optional package is not installed. The message says what to install."""
