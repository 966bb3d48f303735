"""Runs artifacts on inference runtimes."""

from .session import Session

__all__ = ["Session"]
