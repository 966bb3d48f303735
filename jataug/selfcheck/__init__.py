"""What can run an artifact on this machine, and whether it runs it right."""

from .survey import Row, Survey, survey

__all__ = ["Row", "Survey", "survey"]
