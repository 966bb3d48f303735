"""Loads a model and prepares it as a classifier that can be differentiated."""
