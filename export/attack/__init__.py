"""The joint attack as a graph: the warp, one iteration, and the forms of the artifact."""
