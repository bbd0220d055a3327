"""Stories of kernels that begin warm, and of what is told of their ends."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.core.actions import Discard, Park, Spawn
from supervisor.core.events import (
    Missed,
    Noted,
    Restart,
    SpareEnded,
    SpareParked,
    Spawned,
    Stop,
)
from supervisor.core.model import Begun, Cause, Check, Executing, Exit
from supervisor.settings.config import BackoffConfig, StandbyConfig
from tests.core.story import CLEAN, Story, config, process, running


def test_how_a_run_began_is_told_once_it_is_ready_and_kept_while_it_runs() -> None:
    story = Story()
    story.load(config())
    story.tell(Spawned("a", 1, process(), Begun("prepared", "its imports take long")))

    story.ready()

    told = story.said("kernel.ready").fields
    assert ("prepared", "its imports take long") == (told["how"], told["why"])
    assert Begun("prepared", "its imports take long") == story.kernel().phase.begun


def test_what_a_run_executed_when_it_died_is_told() -> None:
    story = running()

    story.exited(Exit(Cause.KILLED, signal="SIGKILL", executing=Executing(41, "then", "x = 1")))

    assert {"count": 41, "since": "then", "code": "x = 1"} == story.said("kernel.died").fields["executing"]


def test_a_kernel_that_became_silent_is_told_with_its_stacks() -> None:
    story = running()
    for _ in range(2):
        story.tell(Missed("a", 1, Check.HEARTBEAT))

    story.tell(Missed("a", 1, Check.HEARTBEAT, ("File x, line 1 in f",)))

    assert ["File x, line 1 in f"] == story.said("kernel.unresponsive").fields["stacks"]


def test_what_happens_to_a_zygote_is_told_whatever_has_become_of_the_kernel() -> None:
    story = Story()

    assert [] == story.tell(Noted("a", 3, "zygote.unfit", {"reason": "import x: ImportError"}))

    told = story.last_published[0]
    assert ("zygote.unfit", "warning", 3) == (told.event, told.level, told.generation)


# Spares

STANDBY = {"warm_start": "standby"}


def standby(**settings: Any) -> Story:
    """A kernel that runs, with a spare that is on its way."""
    return running(**{**STANDBY, **settings})


def parked(**settings: Any) -> Story:
    """A kernel that runs, with a spare that waits."""
    story = standby(**settings)
    story.tell(SpareParked("a", 1))
    return story


def test_a_kernel_that_is_ready_gets_a_spare_which_takes_its_place_at_its_death() -> None:
    story = Story()
    story.load(config(**STANDBY))
    story.spawned()

    assert [Park("a", 1, story.kernel().declared)] == story.ready()
    assert [] == story.tell(SpareParked("a", 1))
    assert ["standby.ready"] == story.last_events
    assert [Spawn("a", 2, story.kernel().declared, 1)] == story.exited()
    story.spawned()
    assert [Park("a", 2, story.kernel().declared)] == story.ready()


def test_a_spare_that_is_on_its_way_at_the_death_is_dropped() -> None:
    story = standby()

    assert [Discard("a", 1), Spawn("a", 2, story.kernel().declared)] == story.exited()


def test_a_restart_by_order_takes_the_spare_and_a_stop_drops_it() -> None:
    story = parked()
    story.tell(Restart("a"))
    assert [Spawn("a", 2, story.kernel().declared, 1)] == story.exited(CLEAN)

    story = parked()
    assert Discard("a", 1) in story.tell(Stop("a"))
    assert "standby.dropped" in story.last_events


def test_an_edit_that_a_run_would_be_started_anew_for_renews_the_spare_and_a_live_one_does_not() -> None:
    story = parked()

    assert [] == [one for one in story.load(config(**STANDBY, stop_timeout=3.0)) if isinstance(one, Discard)]
    edited = config(**STANDBY, startup="x = 1")
    assert [Discard("a", 1), Park("a", 2, edited)] == [
        one for one in story.load(edited) if isinstance(one, Discard | Park)
    ]
    assert [Discard("a", 2)] == [one for one in story.load(config()) if isinstance(one, Discard | Park)]


def test_a_spare_is_renewed_when_it_is_old() -> None:
    story = parked(standby=StandbyConfig(max_age=60.0))

    assert [Discard("a", 1), Park("a", 2, story.kernel().declared)] == story.tick()


def test_a_spare_that_comes_to_nothing_is_told_once_and_tried_again_later() -> None:
    story = standby()

    assert [] == story.tell(SpareEnded("a", 1, "NameError"))
    assert ["standby.failed"] == story.last_events
    assert [Park("a", 2, story.kernel().declared)] == story.tick()
    assert [] == story.tell(SpareEnded("a", 2, "NameError"))
    assert [] == story.last_events
    story.exited()
    story.tick(3600.0)
    assert [] == [one for one in story.published if one.event == "standby.ready"]


def test_a_spare_that_is_not_parked_in_time_is_ended() -> None:
    story = standby(start_timeout=5.0)

    assert [Discard("a", 1)] == story.tick()
    assert "in time" in str(story.said("standby.failed").fields["reason"])


def test_what_is_told_of_an_earlier_spare_changes_nothing() -> None:
    story = parked()
    before = story.state

    assert [] == story.tell(SpareEnded("a", 7, "it ended"))
    assert [] == story.tell(SpareParked("nobody", 7))
    assert before == story.state


@pytest.mark.parametrize("slots", [1, 4])
def test_spares_come_after_the_starts_that_wait_and_those_under_way(slots: int) -> None:
    story = Story()
    story.load(config("a", **STANDBY), config("b"), max_concurrent_starts=slots)
    story.spawned("a")

    actions = story.ready("a")

    assert [] == [one for one in actions if isinstance(one, Park)]
    story.spawned("b")
    assert [Park("a", 1, story.kernel().declared)] == story.ready("b")


def test_the_place_of_a_spare_that_is_dropped_is_the_next_ones_at_once() -> None:
    story, kept = Story(), {**STANDBY, "on_config_change": "manual"}
    story.load(config("a", **kept), config("b", **kept), max_concurrent_starts=1)
    for name in ("a", "b"):
        story.spawned(name)
        story.ready(name)

    edited = [config("a", **kept), config("b", **kept, cwd="/x")]
    story.load(*edited, max_concurrent_starts=1)
    story.tell(SpareParked("a", 1))
    actions = story.load(config("a", **kept), config("b", **kept, cwd="/y"), max_concurrent_starts=1)

    assert [Discard("b", 1), Park("b", 2, story.kernel("b").declared)] == [
        one for one in actions if isinstance(one, Park | Discard)
    ]


def test_a_kernel_that_dies_again_and_again_gets_no_spare() -> None:
    story = standby(max_restarts=0, backoff=BackoffConfig(initial=0.0, next=0.0, jitter=0.0))
    for _ in range(2):
        story.exited()
        story.runs()
    story.exited()
    story.spawned()

    assert [] == story.ready()
