"""Tables: as wide as what is in them, and never wider than the terminal."""

from __future__ import annotations

import pytest

from supervisor.cli.table import Cell, Column, cut, render

COLUMNS = (
    Column("NAME", least=4),
    Column("PID", is_number=True),
    Column("FILE", least=3, keeps_end=True),
)
ROWS = [[Cell("analysis"), Cell("7", "red"), Cell("/run/a.json")], [Cell("b"), Cell("4242"), Cell("-")]]


def table(width: int | None, *, colours: bool = False) -> list[str]:
    return render(COLUMNS, ROWS, width, colours=colours)


def test_columns_are_as_wide_as_what_is_in_them_and_numbers_stand_at_the_right() -> None:
    assert [
        "NAME       PID  FILE",
        "analysis     7  /run/a.json",
        "b         4242  -",
    ] == table(None)


def test_a_narrow_terminal_cuts_the_last_columns_first_and_of_a_path_its_beginning() -> None:
    assert ["NAME       PID  FILE", "analysis     7  ….json", "b         4242  -"] == table(22)
    assert ["NAME    PID  …LE", "anal…     7  …on", "b      4242  -"] == table(16)


def test_what_cannot_be_cut_any_more_ends_with_the_terminal() -> None:
    assert ["NAME   PID", "ana…     7", "b     4242"] == [line.rstrip() for line in table(10)]


def test_colours_take_no_room() -> None:
    assert [
        "\x1b[1mNAME\x1b[0m       \x1b[1mPID\x1b[0m  \x1b[1mFILE\x1b[0m",
        "analysis     \x1b[31m7\x1b[0m  /run/a.json",
        "b         4242  -",
    ] == table(27, colours=True)


def test_a_cell_stays_a_line() -> None:
    rows = [[Cell("a\nb"), Cell("\x1b[2J"), Cell("c")]]

    assert r"a\nb  \x1b[2J  c" == render(COLUMNS, rows, None, colours=False)[1]


def test_without_rows_there_are_the_titles() -> None:
    assert ["NAME  PID  FILE"] == render(COLUMNS, [], 80, colours=False)


@pytest.mark.parametrize(
    ("width", "begin", "end"),
    [(9, "text", "text"), (4, "text", "text"), (3, "te…", "…xt"), (1, "…", "…"), (0, "", "")],
)
def test_a_text_is_cut_at_either_end(width: int, begin: str, end: str) -> None:
    assert (begin, end) == (cut("text", width), cut("text", width, keeps_end=True))
