"""Starting the small kernel, and waiting for conditions."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

TIMEOUT = 30.0  # seconds; the one deadline of all waits

PROGRAM = Path(__file__).with_name("mini.py")


def mini(*flags: str) -> list[str]:
    """The command of a small kernel; ``tests/kernels/mini.py`` has the flags."""
    return [sys.executable, str(PROGRAM), "-f", "{connection_file}", *flags]


MINI = mini()


def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what or "waited in vain"
        time.sleep(0.005)
