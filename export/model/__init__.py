"""From a model as it comes to a classifier that can be differentiated."""
