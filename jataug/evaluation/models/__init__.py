"""Models under evaluation: logits and vector-Jacobian products in numpy."""
