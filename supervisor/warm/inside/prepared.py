"""An ipykernel that is started in the ordinary way, with a door, a record and start-up code."""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any

from .app import StartupFailed, boot, give_up, record_crashes, serve


def main(fd: int, words: list[str]) -> None:
    """Run it: ``fd`` is open on the order, ``words`` are the kernel's own arguments."""
    order = read_order(fd)
    resemble(order, words)
    record_fd = record_crashes()
    try:
        app = boot(words, order, record_fd)
    except StartupFailed as error:
        give_up(order, record_fd, error)
    serve(app, order, record_fd)


def read_order(fd: int) -> dict[str, Any]:
    """What the supervisor says of this run; the descriptor is closed."""
    with open(fd, encoding="utf-8") as file:
        order: dict[str, Any] = json.load(file)
    return order


def resemble(order: dict[str, Any], words: list[str]) -> None:
    """Look as if started by ``python -m MODULE WORDS``."""
    name = order["module"]
    spec = importlib.util.find_spec(name + ".__main__" if name == "ipykernel" else name)
    sys.argv = [spec.origin if spec and spec.origin else name, *words]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = order["argv"]
