"""Reverse-mode differentiation of a classifier's graph."""
