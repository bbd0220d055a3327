"""How spans and signals are written, and how a run ended, as the view of its kernel tells."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from supervisor.wording import death_of, how_it_ended, signal_name, span


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


KILLED = {"generation": 3, "cause": "killed", "signal": "SIGKILL", "detail": ""}
OOM = {"generation": 3, "cause": "oom", "signal": "SIGKILL", "detail": "memory: 2 GiB of 2 GiB"}


def view(phase: str, death: dict[str, Any] | None = None, reason: str = "") -> dict[str, Any]:
    return {"name": "a", "phase": phase, "last_death": death, "reason": reason}


@pytest.mark.parametrize(
    ("told", "how"),
    [
        (
            view("running", KILLED),
            "a died: killed by SIGKILL; started again as run 4, its variables are lost.",
        ),
        (view("starting"), "a was restarted; started again as run 4, its variables are lost."),
        (view("stopped"), "a was stopped."),
        (view("failed", None, "no such command"), "a has failed. It is not started again: no such command"),
        (view("stopped", None, "it has left the file"), "a was stopped. it has left the file"),
        (
            view("failed", OOM, "died 6 times"),
            "a died: out of memory, memory: 2 GiB of 2 GiB. It is not started again: died 6 times",
        ),
    ],
)
def test_what_became_of_a_run_is_told_with_what_becomes_of_the_kernel(told: dict[str, Any], how: str) -> None:
    assert how == how_it_ended(told, 3)


def test_the_death_of_another_run_is_none_of_this_one() -> None:
    assert KILLED == death_of(view("running", KILLED), 3)
    assert death_of(view("running", KILLED), 4) is None
    assert death_of(view("running"), 3) is None
