"""Kernels on other machines: what runs there, and the relay by which they keep their local address."""
