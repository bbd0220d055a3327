"""The exit codes of the command line, and the exception that carries one to its end."""

from __future__ import annotations

DONE = 0
FAILED = 1
USAGE = 2
NO_DAEMON = 3
BAD_CONFIG = 78  # EX_CONFIG of sysexits.h
MEANINGS = {
    DONE: "done",
    FAILED: "the order failed or was refused",
    USAGE: "wrong usage",
    NO_DAEMON: "no daemon answers",
    BAD_CONFIG: "the configuration is bad",
}


class Quit(Exception):
    """End with this code, after saying what is wrong and what to do."""

    def __init__(self, code: int, message: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
