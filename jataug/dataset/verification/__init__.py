"""Verification of a stored data set against its source and its model."""
