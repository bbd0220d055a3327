"""Numbered lines, and a file of them."""

from __future__ import annotations

from pathlib import Path


def line(number: int) -> bytes:
    return b"line %07d\n" % number


def lines(*numbers: int) -> bytes:
    return b"".join(map(line, numbers))


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
