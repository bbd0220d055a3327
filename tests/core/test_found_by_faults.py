"""Stories of weaknesses that injected faults have shown (tests/faults)."""

from __future__ import annotations

from supervisor.core.model import Cause, Exit
from tests.core.story import CRASHED, Story, config, running

NO_ROOM = Exit(Cause.UNKNOWN, detail="Resource temporarily unavailable", is_passing=True)


def test_a_machine_without_room_for_a_process_is_asked_again_for_ever_ever_more_seldom() -> None:
    story = running(max_restarts=2)
    story.exited()
    delays = []
    for _ in range(12):
        if story.phase == "Backoff":
            story.tick()
        story.spawn_failed(NO_ROOM)
        delays.append(story.said("kernel.restarting").fields["delay"])

    assert "Backoff" == story.phase
    assert sorted(delays) == delays
    assert 60.0 == delays[-1]


def test_a_machine_without_room_uses_up_none_of_the_restarts_that_the_kernel_has() -> None:
    story = Story()
    story.load(config(max_restarts=1, restart_window=1e6))
    for _ in range(5):
        story.spawn_failed(NO_ROOM)
        if story.phase == "Backoff":
            story.tick()
    story.runs()
    story.exited(CRASHED)

    assert "Failed" != story.phase
    if story.phase == "Backoff":
        story.tick()
    story.runs()
    story.exited(CRASHED)
    assert "Failed" == story.phase


def test_a_kernel_that_is_never_restarted_gets_its_one_run_once_there_is_room_for_it() -> None:
    story = Story()
    story.load(config(restart="never"))
    for _ in range(2):
        story.spawn_failed(NO_ROOM)
    assert "Backoff" == story.phase

    story.tick()
    story.runs()
    story.exited(CRASHED)

    assert "Failed" == story.phase
