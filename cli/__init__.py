"""The command line: parse, call, print; one command a file."""

from .main import main

__all__ = ["main"]
