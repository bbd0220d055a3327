"""Measures the supervisor from outside, beside others that keep kernels alive."""
