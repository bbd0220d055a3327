"""The stop ladder: asked, then terminated, then killed, each step with its time."""

from __future__ import annotations

from math import inf
from signal import SIGKILL, SIGTERM

import pytest

from supervisor.core.actions import AskToExit, Forget, SignalGroup, Spawn, Withdraw
from supervisor.core.events import Load, Restart, Shutdown, Spawned, Start, Stop
from supervisor.core.lifecycle import KILL_PATIENCE, TERMINATE_PATIENCE
from supervisor.core.model import Course, Exit, Step, Stopping, Want
from tests.core.story import CLEAN, CRASHED, KILLED, NOT_FOUND, Story, config, process, running

ASK = [AskToExit("a", 1)]
TERMINATE = [SignalGroup("a", 1, SIGTERM)]
KILL = [SignalGroup("a", 1, SIGKILL)]


def step_of(story: Story) -> Step:
    phase = story.kernel().phase
    assert isinstance(phase, Stopping)
    return phase.step


def test_a_kernel_that_ignores_everything_is_asked_then_terminated_then_killed() -> None:
    story = running(stop_timeout=7.0)

    assert ASK == story.tell(Stop("a"))
    assert story.now + 7.0 == story.deadline
    assert TERMINATE == story.tick()
    assert story.now + TERMINATE_PATIENCE == story.deadline
    assert KILL == story.tick()
    assert story.now + KILL_PATIENCE == story.deadline


def test_a_kill_is_repeated_until_the_process_is_gone() -> None:
    story = running()
    story.tell(Stop("a", now=True))

    for _ in range(3):
        assert KILL == story.tick()
    assert [Withdraw("a")] == story.exited()
    assert story.deadline is None


def test_no_step_is_taken_before_its_time() -> None:
    story = running(stop_timeout=7.0)
    story.tell(Stop("a"))

    assert [] == story.tick(6.9)
    assert TERMINATE == story.tick(0.1)


def test_without_stop_timeout_the_next_step_follows_at_once() -> None:
    story = running(stop_timeout=0.0)

    assert ASK == story.tell(Stop("a"))
    assert TERMINATE == story.tick()
    assert story.now + TERMINATE_PATIENCE == story.deadline


def test_an_endless_stop_timeout_wakes_nobody() -> None:
    story = running(stop_timeout=inf)

    assert ASK == story.tell(Stop("a"))
    assert story.deadline is None


def test_a_second_stop_is_not_a_second_step() -> None:
    story = running()
    story.tell(Stop("a"))
    deadline = story.deadline
    story.now += 1

    assert [] == story.tell(Stop("a"))
    assert deadline == story.deadline


def test_a_harder_stop_takes_its_step_at_once() -> None:
    story = running()
    story.tell(Stop("a"))

    assert KILL == story.tell(Stop("a", now=True))
    assert [] == story.tell(Stop("a", now=True))
    assert [] == story.tell(Stop("a"))
    assert Step.KILL is step_of(story)


def test_a_step_that_was_taken_is_not_taken_back_by_a_polite_restart() -> None:
    story = running()
    story.tell(Stop("a"))
    assert TERMINATE == story.tick()

    assert [] == story.tell(Restart("a"))
    assert Step.TERMINATE is step_of(story)
    assert Want.UP is story.kernel().want


def test_a_stop_before_the_spawn_answers_is_carried_out_as_soon_as_it_does() -> None:
    story = Story()
    story.load(config())

    assert [] == story.tell(Stop("a"))
    assert story.deadline is None
    story.now += 30
    assert ASK == story.spawned()
    assert story.now + 10.0 == story.deadline
    assert ["kernel.starting"] == story.last_events


def test_the_step_that_is_pushed_is_the_hardest_that_was_ordered_meanwhile() -> None:
    story = Story()
    story.load(config())
    story.tell(Stop("a"))
    story.tell(Stop("a", now=True))

    assert KILL == story.spawned()


def test_a_restart_before_the_spawn_answers_comes_back_after_the_exit() -> None:
    story = Story()
    story.load(config())
    story.tell(Restart("a"))

    assert [AskToExit("a", 1, restart=True)] == story.spawned()
    assert [] == story.ready()
    assert [Spawn("a", 2, config())] == story.exited(CLEAN)


def test_a_stop_is_over_when_the_spawn_in_flight_fails() -> None:
    story = Story()
    story.load(config())
    story.tell(Stop("a"))

    assert [Withdraw("a")] == story.spawn_failed()
    assert ["kernel.stopped"] == story.last_events
    assert () == story.kernel().failures


def test_a_spawn_that_fails_while_its_restart_is_wanted_is_a_death() -> None:
    story = Story()
    story.load(config())
    story.tell(Restart("a"))

    assert [Spawn("a", 2, config())] == story.spawn_failed()
    assert 1 == len(story.kernel().failures)
    assert "kernel.died" in story.last_events


@pytest.mark.parametrize("restart", ["always", "never"])
@pytest.mark.parametrize("how", [NOT_FOUND, CRASHED])
def test_an_edit_that_mends_a_launch_in_flight_is_tried_though_that_launch_fails(
    how: Exit, restart: str
) -> None:
    story = Story()
    story.load(config(restart=restart))
    mended = config(restart=restart, cwd="/elsewhere")
    story.load(mended)

    assert [Spawn("a", 2, mended)] == story.spawn_failed(how)
    assert ["kernel.died", "kernel.restarting"] == story.last_events
    told = {"attempt": 0, "delay": 0.0, "reason": "edited", "keys": ["cwd"]}
    assert told == story.said("kernel.restarting").fields
    assert ((), 0, 1) == (story.kernel().failures, story.kernel().streak, story.kernel().restarts)


@pytest.mark.parametrize("restart", ["always", "never"])
def test_an_edit_of_a_run_that_is_ended_for_its_hang_is_tried_though_the_budget_is_used_up(
    restart: str,
) -> None:
    story = Story()
    story.load(config(start_timeout=5.0, max_restarts=1, restart=restart))
    story.spawned()
    if restart == "always":
        story.exited(CRASHED)
        story.spawned()
    story.tick()
    mended = config(start_timeout=5.0, max_restarts=1, restart=restart, cwd="/elsewhere")
    story.load(mended)

    assert [Spawn("a", story.kernel().generation + 1, mended)] == story.exited()
    assert ["kernel.died", "kernel.restarting"] == story.last_events
    assert () == story.kernel().failures


def test_an_edit_that_takes_a_kernel_away_from_its_launch_in_flight_is_not_overruled() -> None:
    story = Story()
    story.load(config())
    story.load(config(cwd="/elsewhere"))
    story.load(config(cwd="/elsewhere", enabled=False))

    assert [Withdraw("a")] == story.spawn_failed(CRASHED)


def test_a_spawn_answers_once() -> None:
    story = Story()
    story.load(config())
    story.spawned()
    before = story.state

    assert [] == story.tell(Spawned("a", 1, process(9)))
    assert before == story.state


def test_any_end_of_a_kernel_that_is_wanted_down_is_a_stop() -> None:
    for how in (CLEAN, CRASHED, KILLED):
        story = running()
        story.tell(Stop("a"))

        assert [Withdraw("a")] == story.exited(how)
        assert ["kernel.stopped"] == story.last_events
        assert ((), 0) == (story.kernel().failures, story.kernel().restarts)
        assert story.kernel().last_death is None


def test_a_stop_before_a_delay_is_over_leaves_nothing_due() -> None:
    story = running()
    story.exited()
    story.runs()
    story.exited()
    assert "Backoff" == story.phase

    assert [Withdraw("a")] == story.tell(Stop("a"))
    assert story.deadline is None
    assert ["kernel.stopped"] == story.last_events


def test_shutdown_stops_every_kernel_and_starts_none_afterwards() -> None:
    story = Story()
    story.load(config("a"), config("b"), config("c"), config("d", autostart=False), max_concurrent_starts=1)
    story.runs("a")

    assert [AskToExit("a", 1), Withdraw("c")] == story.tell(Shutdown())
    assert Course.CLOSING is story.state.course
    assert [AskToExit("b", 1)] == story.spawned("b")
    story.exited(CLEAN, "a")
    story.exited(CRASHED, "b")
    assert {"Stopped"} == {type(kernel.phase).__name__ for kernel in story.state.kernels.values()}
    assert {Want.DOWN} == {kernel.want for kernel in story.state.kernels.values()}
    assert story.deadline is None


def test_shutdown_now_goes_straight_to_the_kill() -> None:
    story = running()

    assert KILL == story.tell(Shutdown(now=True))


def test_a_second_shutdown_is_harder_if_it_says_so() -> None:
    story = running()
    assert ASK == story.tell(Shutdown())

    assert [] == story.tell(Shutdown())
    assert KILL == story.tell(Shutdown(now=True))


def test_shutdown_overtakes_a_restart() -> None:
    story = running()
    story.tell(Restart("a"))
    story.tell(Shutdown())

    assert [Withdraw("a")] == story.exited()


def test_after_shutdown_a_file_changes_nothing() -> None:
    story = running()
    story.tell(Shutdown())
    before = story.state

    assert [] == story.tell(Load({"b": config("b")}))
    assert before == story.state


def test_a_kernel_that_left_the_file_is_forgotten_at_its_end_by_shutdown_too() -> None:
    story = running()
    story.load()
    story.tell(Shutdown())

    assert [Forget("a")] == story.exited()
    assert {} == dict(story.state.kernels)
    assert ["kernel.stopped", "kernel.removed"] == story.last_events


@pytest.mark.parametrize("order", [Start("a"), Restart("a")])
def test_a_run_that_hangs_is_dead_even_when_it_was_to_be_restarted_by_hand(order: Start | Restart) -> None:
    story = running(start_timeout=5.0)
    story.tell(Restart("a"))
    story.exited()
    story.spawned()
    story.tick()
    story.tell(order)

    story.exited()
    assert "start-timeout" == story.said("kernel.died").fields["cause"]
    assert 1 == len(story.kernel().failures)


def test_a_stop_of_a_run_that_hangs_is_told_as_its_death_and_its_stop() -> None:
    story = running(start_timeout=5.0)
    story.tell(Restart("a"))
    story.exited()
    story.spawned()
    story.tick()
    story.tell(Stop("a"))

    assert [Withdraw("a")] == story.exited()
    assert ["kernel.died", "kernel.stopped"] == story.last_events
    assert "Stopped" == story.phase


def test_a_hanging_run_of_a_kernel_that_left_the_file_is_forgotten() -> None:
    story = Story()
    story.load(config(start_timeout=5.0))
    story.spawned()
    story.tick()
    story.load()

    assert [Forget("a")] == story.exited()
    assert {} == dict(story.state.kernels)
