"""Passes that simplify a model before it is differentiated."""
