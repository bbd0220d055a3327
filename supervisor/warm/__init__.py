"""Kernels that come back soon, and with an answer: how an ipykernel is prepared, forked and parked."""
