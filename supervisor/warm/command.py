"""What a kernel's command is to us: an ipykernel that can be prepared, or why it cannot.

Owns the reading of the command line and what is ordered of a run.  Starts nothing.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

LAUNCH = str(Path(__file__).parent / "inside" / "launch.py")
MODULES = ("ipykernel_launcher", "ipykernel")
_PYTHON = re.compile(r"(python|pypy)[0-9.]*")
_WITH_VALUE = ("-X", "-W", "--check-hash-based-pycs")


class NotWarm(Exception):
    """Why a kernel is started cold."""


class IPython(Struct, frozen=True):
    """``python`` with its options runs ``module`` with ``words``."""

    python: tuple[str, ...]
    module: str
    words: tuple[str, ...]


def read_command(argv: Sequence[str]) -> IPython:
    """The parts of the command of an ipykernel.  Raises NotWarm for any other."""
    if not _PYTHON.fullmatch(os.path.basename(argv[0])):  # noqa: PTH119 - not everything is a path
        raise NotWarm("it is not run by python itself")
    at = 1
    while at < len(argv) and argv[at].startswith("-") and argv[at] not in ("-m", "-c", "-"):
        at += 2 if argv[at] in _WITH_VALUE else 1
    if argv[at : at + 1] != ["-m"] or argv[at + 1 : at + 2] not in [[module] for module in MODULES]:
        raise NotWarm("it is not an ipykernel (python -m ipykernel_launcher)")
    return IPython(tuple(argv[:at]), argv[at + 1], tuple(argv[at + 2 :]))


def prepared(parts: IPython, order_fd: int) -> list[str]:
    """The command that runs it prepared."""
    return [*parts.python, LAUNCH, "prepared", str(order_fd), *parts.words]


def write_order(order: dict[str, Any]) -> int:
    """A descriptor that is open on an order, at its begin."""
    has_memory = hasattr(os, "memfd_create")
    with os.fdopen(os.memfd_create("order"), "wb") if has_memory else tempfile.TemporaryFile() as file:
        file.write(json.dumps(order).encode())
        fd = os.dup(file.fileno())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
