"""Plain tables: columns as wide as needed, cut to the width of a terminal.

Owns layout only.  Rich tables are not worth 50 ms of imports for each call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from supervisor.cli.screen import paint
from supervisor.wording import one_line

_GAP = "  "


class Column(NamedTuple):
    """A column: its title, and how it gives way when the terminal is narrow.

    ``least`` is the width down to which it is cut (``None``: never); columns
    are cut from the last to the first.  ``keeps_end`` cuts off the beginning,
    as is right for paths.
    """

    title: str
    least: int | None = None
    keeps_end: bool = False
    is_number: bool = False


class Cell(NamedTuple):
    """A text and its colour."""

    text: str
    colour: str = "plain"


def render(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int | None, *, colours: bool
) -> list[str]:
    """The lines of the table, the titles first; ``width`` ``None`` cuts nothing."""
    clean = [[Cell(one_line(cell.text), cell.colour) for cell in row] for row in rows]
    widths = [
        max(len(column.title), *(len(row[index].text) for row in clean), 0)
        for index, column in enumerate(columns)
    ]
    if width is not None:
        widths = _narrowed(columns, widths, width)
    titles = [Cell(column.title, "bold") for column in columns]
    lines = [_line(columns, row, widths, colours=colours) for row in [titles, *clean]]
    return [line if width is None or colours else line[:width] for line in lines]


def _narrowed(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    found = list(widths)
    excess = sum(found) + len(_GAP) * (len(found) - 1) - width
    for index in reversed(range(len(found))):
        least = columns[index].least
        if least is not None and excess > 0:
            given = min(excess, max(found[index] - least, 0))
            found[index] -= given
            excess -= given
    return found


def _line(columns: Sequence[Column], row: Sequence[Cell], widths: Sequence[int], *, colours: bool) -> str:
    parts = []
    for column, cell, width in zip(columns, row, widths, strict=True):
        text = cut(cell.text, width, keeps_end=column.keeps_end)
        is_last = column is columns[-1]
        room = "" if is_last and not column.is_number else " " * (width - len(text))
        painted = paint(text, cell.colour, colours=colours)
        parts.append(room + painted if column.is_number else painted + room)
    return _GAP.join(parts).rstrip()


def cut(text: str, width: int, *, keeps_end: bool = False) -> str:
    """The text in at most ``width`` characters, with an ellipsis where it was cut."""
    if len(text) <= width:
        return text
    if width < 1:
        return ""
    return "…" + text[len(text) - width + 1 :] if keeps_end else text[: width - 1] + "…"
