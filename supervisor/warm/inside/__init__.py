"""What runs in the kernel's own interpreter: given to it by path, the standard library and ipykernel only.

For Python 3.9 and newer.  The supervisor imports ``pending`` alone, which both sides read.
"""
