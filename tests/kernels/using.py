"""Starting the small kernel, and waiting for conditions."""

from __future__ import annotations

import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("mini.py")


def mini(*flags: str) -> list[str]:
    """The command of a small kernel; ``tests/kernels/mini.py`` has the flags."""
    return [sys.executable, str(PROGRAM), "-f", "{connection_file}", *flags]


MINI = mini()
