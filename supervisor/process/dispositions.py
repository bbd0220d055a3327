"""What is spawned inherits no ignored and no blocked signal, whatever we were started with.

Owns the dispositions and the mask of this process for the moment of a spawn.
Never spawns anything.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_lock = threading.Lock()


def _renew_lock() -> None:
    """In a forked child: whoever held it is not here."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def default_signals() -> Iterator[None]:
    """While it lasts, what is spawned inherits no ignored and no blocked signal.

    A program started in the background by a script ignores SIGINT, and so
    would the kernel, for good: exec(2) keeps ignored signals ignored and only
    resets handlers.  So an ignored signal gets a handler that does nothing, for
    as long as it takes.  Without ``preexec_fn``, which needs a fork of all our
    memory and is not safe beside threads; and below ``signal.signal``, which
    only the main thread may call.  SIGPIPE and SIGXFSZ, which Python ignores,
    are put right by Popen itself.
    """
    if sys.platform == "win32":
        yield
        return
    restored = {signal.SIGPIPE, signal.SIGXFSZ}
    ignored = [
        signum
        for signum in signal.valid_signals() - restored
        if signal.getsignal(signum) is signal.SIG_IGN  # as it was when Python started, or was set by it
    ]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if blocked:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        if not ignored:
            yield
            return
        with _lock, _caught(ignored):
            yield
    finally:
        if blocked:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextmanager
def _caught(signums: Sequence[int]) -> Iterator[None]:
    import ctypes

    libc = ctypes.CDLL(None)
    set_handler = libc.signal
    set_handler.argtypes = [ctypes.c_int, ctypes.c_void_p]
    set_handler.restype = ctypes.c_void_p
    ignore = int(signal.SIG_IGN)
    # getpid(2) does nothing, needs no GIL and is async-signal-safe (signal-safety(7)).
    nothing = ctypes.cast(libc.getpid, ctypes.c_void_p).value
    for signum in signums:
        set_handler(signum, nothing)
    try:
        yield
    finally:
        for signum in signums:
            # Whoever set another handler in the meantime meant it.
            if (current := set_handler(signum, ignore)) != nothing:
                set_handler(signum, current)
