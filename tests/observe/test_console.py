"""Events as lines on a terminal."""

from typing import Any

from supervisor.observe.console import render
from supervisor.observe.sentence import tell

RUN: dict[str, Any] = {"kernel": "analysis", "generation": 4, "pid": 4242}


def test_what_the_sentence_tells_is_not_told_twice_on_the_console() -> None:
    event = {
        "event": "kernel.died",
        **RUN,
        "signal": "SIGKILL",
        "cause": "killed",
        "restarts": 2,
        "word": "a b",
    }

    assert {"pid", "signal", "generation"} <= tell(event)[1]
    line = render(event, colour=False)

    assert line.endswith('(run 4, pid 4242)  restarts=2 word="a b"')


def test_the_console_shows_the_tail_below_with_escapes_made_harmless() -> None:
    event = {
        "event": "kernel.died",
        "level": "warning",
        "kernel": "a",
        "output_tail": ["one", "\x1b]0;title\x07"],
    }

    lines = render(event, colour=False).splitlines()

    assert ["         | one", "         | \\x1b]0;title\\x07"] == lines[1:]
    assert "warning kernel.died" in lines[0]


def test_the_console_colours_by_level() -> None:
    assert "\x1b[31m" in render({"event": "kernel.failed", "level": "error", "kernel": "a"}, colour=True)
    assert "\x1b" not in render({"event": "kernel.failed", "level": "error", "kernel": "a"}, colour=False)
