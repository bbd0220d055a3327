"""Mistakes in a file, and how they are worded: *where: what: what to do*, one a line.

Owns the spelling of keys and values in messages.  Finds no mistakes itself.
A line stays one line whatever the file contains: unprintable characters are
escaped and long values cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 80
_ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake: in which file, at which key (or line), and what is wrong and to be done.

    ``key`` is a dotted path as TOML spells it, ``line 3, column 5`` for a
    mistake of syntax, or empty for one of the whole file.  ``line`` counts
    from 1, as far as it is known.
    """

    file: str
    key: str
    what: str
    line: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """Spell it on one line: ``file: key.path: what: what to do``."""
        return ": ".join(part for part in (escaped(self.file), self.key, self.what) if part)


class ConfigError(Exception):
    """The file has mistakes; nothing is to be done with it.

    ``files``, ``digest`` and ``patterns`` tell what was read, so that a watcher
    can see whether a rejected file has changed since.  Its text is one mistake a line.
    """

    def __init__(
        self,
        mistakes: Iterable[Mistake],
        files: Sequence[Path] = (),
        digest: str = "",
        patterns: Sequence[Path] = (),
    ) -> None:
        self.mistakes: tuple[Mistake, ...] = tuple(mistakes)
        self.files: tuple[Path, ...] = tuple(files)
        self.digest = digest
        self.patterns: tuple[Path, ...] = tuple(patterns)
        super().__init__(*self.mistakes)

    def __str__(self) -> str:
        """Spell the mistakes, one a line."""
        return "\n".join(map(str, self.mistakes))


def escaped(text: str) -> str:
    """The text with every unprintable character as TOML escapes it; quotes stay."""
    return "".join(_escape(char) if not char.isprintable() else char for char in text)


def quoted(text: str) -> str:
    """The text as a TOML basic string.

    Raises nothing; a lone surrogate, which TOML cannot hold, is escaped all the same.
    """
    return '"' + "".join(_escape(char) for char in text) + '"'


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"


def bare_or_quoted(key: str) -> str:
    """A key as TOML spells it: bare where it may be, quoted elsewhere."""
    return key if _BARE.fullmatch(key) else quoted(key)


def cut(text: str) -> str:
    """The text, its end replaced by an ellipsis where it is too long for a message."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def dotted(path: Sequence[str | int]) -> str:
    """A path of keys and indexes as a message names it: ``kernels.analysis.argv[1]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + bare_or_quoted(cut(part))
    return text


def spelled(value: Any) -> str:
    """A value as the user spelled it, as far as a message has room; of a table or array, what it is."""
    match value:
        case str():
            return quoted(cut(value))
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if value.bit_length() <= 64 else "this huge number"
        case float():
            return repr(value)
        case datetime() | date() | time():
            return value.isoformat()
        case list():
            return "an array"
        case _:
            return "a table"


def described(value: Any, *, secret: bool) -> str:
    """A value and its kind, as the beginning of a sentence; a secret by its kind only."""
    kinds = {str: "a string", bool: "a boolean", int: "an integer", float: "a float", list: "an array"}
    kinds |= {dict: "a table", datetime: "a date and time", date: "a date", time: "a time"}
    if secret or isinstance(value, list | dict):
        return f"is {kinds[type(value)]}"
    return f"{spelled(value)} is {kinds[type(value)]}"


def listed(words: Iterable[str]) -> str:
    """The words quoted, with commas between them."""
    return ", ".join(map(quoted, words))


def closest(word: str, known: Iterable[str]) -> str | None:
    """The word that was probably meant: ``stop-timeout`` and ``stopTimeout`` are ``stop_timeout``."""
    from difflib import get_close_matches

    plain = {_plain(name): name for name in known}
    if len(word) > 200:
        return None
    found = get_close_matches(_plain(word), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def _plain(word: str) -> str:
    return "".join(char for char in word.lower() if char.isalnum()) or word


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a word that is not known, or ``""`` when nothing is near."""
    found = closest(word, known)
    return "" if found is None else f"did you mean {found!r}?"
