"""How a run ended, for people, as the daemon's view of its kernel tells."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.jupyter.views import death_of, how_it_ended

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
