"""Attacks on arrays that lie on the runtime's device. Experimental: never run on CUDA."""
