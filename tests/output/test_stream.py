"""Where a run begins in its output, and what was written since, whatever was moved meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

from supervisor.output.file import OutputFile
from tests.output.lines import append, line, lines


def test_what_a_run_wrote_is_told_from_what_was_there_before(path: Path) -> None:
    file = OutputFile(path)
    append(path, lines(1, 2))
    begin = file.position()
    assert () == file.tail_since(begin)

    append(path, lines(3, 4))

    assert ("line 0000003", "line 0000004") == file.tail_since(begin)


def test_that_holds_when_the_file_was_trimmed_in_between(path: Path) -> None:
    file = OutputFile(path)
    append(path, lines(*range(600)))
    file.trim(3000, 9)
    append(path, lines(*range(600, 620)))
    begin = file.position()
    append(path, lines(*range(1000, 1200)))
    begin_again = file.position()

    assert 200 == len(file.tail_since(begin, 999))
    assert file.trim(1500, 9)
    assert tuple(f"line {n:07}" for n in range(1000, 1200)) == file.tail_since(begin, 999)
    assert () == file.tail_since(begin_again)
    append(path, line(2000))
    assert ("line 0002000",) == file.tail_since(begin_again)


def test_that_holds_when_the_file_was_rotated_in_between(path: Path) -> None:
    file = OutputFile(path)
    append(path, line(1))
    begin = file.position()
    append(path, line(2))
    file.rotate(1, 3)
    append(path, line(3))

    assert ("line 0000002", "line 0000003") == file.tail_since(begin)


def test_of_a_run_whose_beginning_is_gone_all_that_is_left_counts(path: Path) -> None:
    file = OutputFile(path)
    append(path, line(0))
    file.rotate(1, 2)
    append(path, line(1))
    begin = file.position()
    for number in range(2, 6):
        append(path, line(number))
        file.rotate(1, 2)

    assert ("line 0000004", "line 0000005") == file.tail_since(begin)


def test_an_emptied_file_is_read_from_its_beginning(path: Path) -> None:
    file = OutputFile(path)
    append(path, lines(1, 2, 3))
    begin = file.position()
    os.truncate(path, 0)
    append(path, line(4))

    assert ("line 0000004",) == file.tail_since(begin)
