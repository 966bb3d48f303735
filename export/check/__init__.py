"""Checks of a model before export, and of a graph before it is written."""
