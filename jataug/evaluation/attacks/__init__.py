"""The attacks of an evaluation, one per module."""
