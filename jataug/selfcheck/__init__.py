"""Finds the runtimes on this machine that can run an artifact, and checks their results."""

from .survey import Row, Survey, survey

__all__ = ["Row", "Survey", "survey"]
