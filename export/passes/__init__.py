"""Passes over a finished graph: cheaper nodes, and less memory."""
