"""Starting the small kernel, and waiting for conditions."""

from __future__ import annotations

import sys
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client import BlockingKernelClient

from tests.waiting import wait_for

PROGRAM = Path(__file__).with_name("mini.py")


def mini(*flags: str) -> list[str]:
    """The command of a small kernel; ``tests/kernels/mini.py`` has the flags."""
    return [sys.executable, str(PROGRAM), "-f", "{connection_file}", *flags]


MINI = mini()


def is_ready(client: Any) -> bool:
    """Whether a client of jupyter_client is; to be asked until it is so."""
    try:
        client.wait_for_ready(timeout=30)
    except RuntimeError:  # judged by its heart, which may beat later than the kernel answers
        return False
    return True


def hear(client: BlockingKernelClient) -> None:
    """Wait until what is published arrives here: a subscription takes effect some time after it is made."""

    def heard() -> bool:
        client.kernel_info()
        try:
            return bool(client.get_iopub_msg(timeout=0.1))
        except Empty:
            return False

    wait_for(heard, "the client hears the kernel")
