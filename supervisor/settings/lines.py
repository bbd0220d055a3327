"""At which line of a TOML text a key stands; the parser does not tell.

Owns a reading of headers and of keys at the beginning of lines.  It may find
less than there is (a key within an array over several lines), never more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import tomli

Path = tuple[str | int, ...]

_WORD = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEY = re.compile(rf"\s*({_WORD}(?:\s*\.\s*{_WORD})*)\s*=")
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_WORD}(?:\s*\.\s*{_WORD})*)\s*\]\]?\s*(?:#.*)?")
_LONG_STRINGS = ('"""', "'''")


class Lines:
    """The lines of one text; read when they are first asked for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._places: dict[Path, int] | None = None

    def of(self, path: Sequence[str | int]) -> int | None:
        """The number of the line, from 1, at which the key at ``path`` begins, or else the table around it.

        ``None`` if not even the first part of the path is found.
        """
        if self._places is None:
            self._places = _places(self._text)
        around = (tuple(path[:length]) for length in range(len(path), 0, -1))
        return next((self._places[place] for place in around if place in self._places), None)


def _places(text: str) -> dict[Path, int]:
    """The path of each table and key, with the first line that begins it."""
    found: dict[Path, int] = {}
    table: Path = ()
    counts: dict[Path, int] = {}
    inside: str | None = None  # of a string over several lines
    for number, line in enumerate(text.splitlines(), 1):
        if inside is None:
            if header := _HEADER.fullmatch(line):
                table = _parts(header[2])
                if header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                found.setdefault(table, number)
            elif key := _KEY.match(line):
                found.setdefault((*table, *_parts(key[1])), number)
        inside = _open_string(line, inside)
    return found


def _parts(key: str) -> Path:
    """The parts of a dotted key, as TOML reads them."""
    parts: list[str] = []
    try:
        value: Any = tomli.loads(f"{key} = 0")
    except ValueError:
        return ()
    while isinstance(value, dict) and value:
        parts += value
        value = value[parts[-1]]
    return tuple(parts)


def _open_string(line: str, inside: str | None) -> str | None:
    """The quotes of a string that goes on in the next line, if one does."""
    at = 0
    while True:
        marks = (inside,) if inside else _LONG_STRINGS
        places = [(place, mark) for mark in marks if (place := line.find(mark, at)) >= 0]
        if not places:
            return inside
        place, mark = min(places)
        inside = None if inside else mark
        at = place + len(mark)
