"""Bytes of a file -> TOML tables, or why not, in one line.

Owns reading a file safely (bounded, only regular files, never blocking on
one) and the wording of mistakes of syntax.  Knows no keys.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

import tomli

from supervisor.settings.mistakes import bare_or_quoted, cut, escaped

LARGEST_FILE = 1024 * 1024  # bytes; a thousand kernels take a tenth of it

_HINTS = (
    ("Invalid value", "strings need quotes, booleans are true and false"),
    ("Invalid statement", "a line is key = value, [table] or # comment"),
    ("Invalid initial character for a key", "quote a key with other signs than letters, digits, _ and -"),
    ("Cannot overwrite a value", "a key stands in a table once; remove one"),
    ("Duplicate inline table key", "a key stands in a table once; remove one"),
    ("Cannot mutate immutable", "a table in braces is complete; put the key into the braces"),
    ("Cannot redefine", "a table is written once; put its keys together"),
    ("Expected newline or end of document", "the next key goes on a line of its own"),
    ("Expected '='", "a line is key = value"),
    ("Expected ']'", "close the bracket"),
    ("Expected", "close the quote or bracket"),
    ("Unclosed array", "close the bracket, and put commas between the values"),
    ("Unclosed inline table", "close the brace, and put commas between the keys"),
    ("Unterminated string", "close the quote"),
    ("Illegal character '\\n'", "close the quote on the line it was opened on"),
    ("Unescaped '\\'", "write two backslashes, or single quotes around the string"),
    ("Illegal character", "remove it, or escape it in the string"),
)  # fmt: skip


class NotReadError(Exception):
    """A file has no tables for us: where in it (or nowhere), and what to do."""

    def __init__(self, what: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.line = line
        at = "" if column is None else f", column {column}"
        self.place = "" if line is None else f"line {line}{at}"


def read_bytes(path: Path) -> bytes:
    """The content of a regular file of at most 1 MiB.  Raises NotReadError."""
    reason: str
    try:
        with open(path, "rb", opener=_not_blocking) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                data = file.read(LARGEST_FILE + 1) or b""
                if len(data) <= LARGEST_FILE:
                    return data
                reason = f"is larger than {LARGEST_FILE // 1024**2} MiB: is it the right file?"
            else:
                reason = "is not a regular file: name a TOML file"
    except FileNotFoundError:
        reason = "no such file: create it, or name another"
    except IsADirectoryError:
        reason = "is a directory: name a file in it"
    except PermissionError:
        reason = "permission denied: let the user of this process read it (chmod, chown)"
    except (OSError, ValueError) as error:
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    raise NotReadError(reason)


def _not_blocking(path: str, flags: int) -> int:
    # A FIFO would otherwise keep us until somebody writes to it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_toml(data: bytes) -> dict[str, Any]:
    """The tables of a TOML text.  Raises NotReadError with line and column."""
    text = _text(data)
    problem: ValueError
    try:
        return tomli.loads(text)
    except RecursionError:
        raise NotReadError("is nested too deeply: a table, array or key has too many levels") from None
    except ValueError as error:  # TOMLDecodeError, and what Python says of integers of 4300 digits
        problem = error
    # Raised out here because the error holds the whole text, which may contain secrets.
    raise _syntax(text, problem)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        byte = data[error.start]
    raise NotReadError(f"byte 0x{byte:02x} is not UTF-8: save the file in this encoding", line)


def _syntax(text: str, problem: ValueError) -> NotReadError:
    if not isinstance(problem, tomli.TOMLDecodeError):
        return NotReadError("a number has too many digits: write a shorter one")
    told, line, column = problem.msg, problem.lineno, problem.colno
    if declared := re.fullmatch(r"Cannot declare \((.*?),?\) twice", told):
        parts = re.findall(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", declared[1])
        name = ".".join(bare_or_quoted(single or double) for single, double in parts)
        return NotReadError(f"[{cut(name)}] is declared twice: put its keys together", line, column)
    if told == "Invalid value" and problem.pos >= len(text):
        return NotReadError("the text ends where a value is due: complete it", line, column)
    hint = next((hint for start, hint in _HINTS if told.startswith(start)), "mend it")
    return NotReadError(f"{escaped(cut(told[:1].lower() + told[1:]))}: {hint}", line, column)
