"""How spans and signals are written."""

from __future__ import annotations

import signal

import pytest

from supervisor.wording import signal_name, span


@pytest.mark.parametrize(
    ("expected", "seconds"),
    [
        ("0 s", 0),
        ("0 s", -1),
        ("4 ms", 0.0042),
        ("0.41 s", 0.412),
        ("3.2 s", 3.21),
        ("10 s", 9.97),
        ("1 min", 59.8),
        ("3 min 4 s", 184),
        ("1 h", 3600),
        ("3 h 2 min", 10920),
        ("2 d 5 h", 2 * 86400 + 5 * 3600 + 59),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(expected: str, seconds: float) -> None:
    assert expected == span(seconds)


def test_every_signal_has_a_name() -> None:
    names = [signal_name(signum) for signum in range(1, signal.SIGRTMAX + 1)]

    assert len(set(names)) == len(names)
    assert ("SIGHUP", "SIGRTMIN", "SIGRTMIN+1") == tuple(
        signal_name(signum) for signum in (1, signal.SIGRTMIN, signal.SIGRTMIN + 1)
    )
    assert "SIG32" == signal_name(32)
