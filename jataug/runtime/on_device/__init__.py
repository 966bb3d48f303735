"""Attacks on arrays on the runtime's device. Experimental: never run on CUDA."""
