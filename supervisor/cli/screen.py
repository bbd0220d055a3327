"""Where the command line writes: a terminal with its width and colours, or a pipe.

Owns what differs between the two.  Colours follow NO_COLOR (no-color.org) and
TERM; nothing in a text that the daemon passes on can command the terminal.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Iterable, Mapping
from io import TextIOWrapper
from typing import TextIO

from supervisor.wording import one_line

_COLOURS = {
    "bold": "\x1b[1m",
    "faint": "\x1b[2m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
    "plain": "",
}
_END = "\x1b[0m"
# What a terminal may get of what a kernel wrote: ends of lines, tabs, colours (SGR of ECMA-48).
_PASSES = re.compile(r"([\r\n\t]|\x1b\[[0-9;:]*m)")
_BEGUN = re.compile(r"\x1b(?:\[[0-9;:]{0,64})?$")
PHASE_COLOURS: Mapping[str, str] = {
    "running": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "waiting": "red",
    "backoff": "yellow",
    "failed": "red",
    "unresponsive": "red",
    "stopped": "faint",
}


def is_terminal(stream: TextIO) -> bool:
    """Whether a person reads the stream on a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """Whether colours are wanted there."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def paint(text: str, colour: str, *, colours: bool) -> str:
    """The text in a colour, if there are colours."""
    code = _COLOURS.get(colour, "")
    return f"{code}{text}{_END}" if colours and code else text


def size(stream: TextIO) -> tuple[int, int] | None:
    """Columns and lines of the terminal; ``None`` in a pipe."""
    if not is_terminal(stream):
        return None
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return columns or 80, lines or 24


def say(text: str) -> None:
    """Write a line of the answer."""
    sys.stdout.write(f"{text}\n")


def complain(text: str) -> None:
    """Write a line that is not the answer: a mistake, a remark, what happens meanwhile."""
    sys.stdout.flush()
    sys.stderr.write(f"kernel-supervisor: {text}\n")
    sys.stderr.flush()


def json_text(value: object, indent: int | None = None) -> str:
    """A JSON value in characters that stdout can have, a lone surrogate as its escape."""
    import json

    is_utf = (sys.stdout.encoding or "").lower().startswith("utf")
    text = json.dumps(value, indent=indent, ensure_ascii=not is_utf, default=str)
    return text.encode("utf-8", "backslashreplace").decode()


def say_json(value: object) -> None:
    """Write one JSON value, on one line in a pipe, indented for a person."""
    say(json_text(value, indent=2 if sys.stdout.isatty() else None))


def tell(value: object, lines: Iterable[str], *, as_json: bool) -> None:
    """Write an answer: the value for programs, or these lines for people."""
    if as_json:
        say_json(value)
    else:
        for line in lines:
            say(line)


def open_all() -> None:
    """Have the three streams lead somewhere: what is opened next would have the number of a closed one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(nowhere, mode, closefd=False))  # noqa: SIM115 - until the process ends


def accept_all() -> None:
    """Let no character keep a line from being written: names of files pass as their bytes, others escaped."""
    codecs.register_error("supervisor", _as_can_be)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="supervisor")


def _as_can_be(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


class Shown:
    """Raw output made fit for a terminal, piece by piece: lines and colours pass, all else is escaped."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def of(self, piece: bytes | str, *, ends: bool = False) -> str:
        """What is to be written of this piece; a sequence of which the end may yet come is kept back."""
        text = self._rest + (piece if isinstance(piece, str) else self._decode(piece, ends))
        held = None if ends else _BEGUN.search(text)
        text, self._rest = (text[: held.start()], held[0]) if held else (text, "")
        return "".join(
            part if index % 2 else one_line(part) for index, part in enumerate(_PASSES.split(text))
        )


class Transient:
    """One line on the terminal that is replaced as things go on; nothing in a pipe."""

    def __init__(self) -> None:
        self._shows = is_terminal(sys.stderr)
        self._shown = False

    @property
    def shows(self) -> bool:
        """Whether there is a terminal to show it on."""
        return self._shows

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._shows:
            columns, _ = size(sys.stderr) or (80, 24)
            sys.stderr.write(f"\r\x1b[K{one_line(text)[: columns - 1]}")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False
