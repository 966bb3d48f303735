"""Passes over a finished graph, for speed and memory."""
