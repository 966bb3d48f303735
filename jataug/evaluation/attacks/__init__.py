"""The attacks of an evaluation, a module each."""
