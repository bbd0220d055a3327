"""How times and deaths are worded."""

from __future__ import annotations

import pytest

from supervisor.cli.words import ago, how_it_died, progress, span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.4, "0.4 s"),
        (119, "1 min 59 s"),
        (172800, "2 d"),
    ],
)
def test_a_span_is_worded_as_everywhere(seconds: float | None, text: str) -> None:
    assert text == span(seconds)


def test_an_instant_is_told_from_now() -> None:
    assert "5 min ago" == ago("1970-01-01T00:00:00Z", 300.0)
    assert "" == ago(None, 300.0)


@pytest.mark.parametrize(
    ("death", "text"),
    [
        ({"cause": "killed", "signal": "SIGKILL"}, "SIGKILL"),
        ({"cause": "oom", "signal": "SIGKILL"}, "out of memory"),
        ({"cause": "exited", "exit_code": 7}, "exit 7"),
        ({"cause": "unknown", "exit_code": None, "signal": None}, "cause unknown"),
    ],
)
def test_a_death_is_told_by_its_cause(death: dict[str, object], text: str) -> None:
    assert text == how_it_died(death)


@pytest.mark.parametrize(
    ("stopping", "text"),
    [
        (None, "a stopping"),
        ({"next": "SIGTERM", "at": "1970-01-01T00:00:08Z"}, "a stopping (SIGTERM in 8 s)"),
        ({"next": None, "at": "1970-01-01T00:00:08Z"}, "a stopping"),
    ],
)
def test_what_comes_next_in_a_stop_is_told(stopping: dict[str, object] | None, text: str) -> None:
    assert text == progress({"name": "a", "phase": "stopping", "stopping": stopping}, 0.0)
