"""How much memory our threads keep for themselves (mallopt(3)).

Owns one setting of the C library, where that is glibc.  Frees nothing.
"""

from __future__ import annotations

import sys

# <malloc.h>
_M_ARENA_MAX = -8


def share_arena() -> None:
    """Have all threads of this process take memory from one place; to be called before there are any.

    Each would have an arena of its own, which keeps megabytes when its thread has long ended.  There
    is nothing to be had for it: threads of Python take turns.
    """
    if sys.platform == "linux":
        import ctypes

        # Not there in other libraries than glibc.
        if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
            mallopt(_M_ARENA_MAX, 1)
