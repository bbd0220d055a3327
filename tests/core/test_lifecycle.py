"""Stops step by step, deaths and what follows them: told, counted, tried again, given up."""

from __future__ import annotations

from math import inf
from signal import SIGKILL, SIGTERM

import pytest

from supervisor.core.actions import AskToExit, AwaitRoom, Forget, SignalGroup, Spawn, Withdraw
from supervisor.core.events import Load, NoRoom, Restart, RoomMade, Shutdown, Spawned, Start, Stop, Tick
from supervisor.core.lifecycle import KILL_PATIENCE, LAUNCH_PATIENCE, TERMINATE_PATIENCE
from supervisor.core.model import Backoff, Cause, Course, Death, Exit, Failed, Step, Stopped, Stopping, Want
from supervisor.settings.config import BackoffConfig
from tests.core.story import CLEAN, CRASHED, KILLED, NOT_FOUND, Story, config, process, running

PATIENT = BackoffConfig(initial=1.0, next=4.0, factor=2.0, jitter=0.0)


def die_again(story: Story, after: float, exit: Exit = CRASHED) -> None:
    """The next run comes when it is due, becomes ready, and dies ``after`` seconds later."""
    if story.phase == "Backoff":
        story.tick()
    story.runs()
    story.now += after
    story.exited(exit)


def test_after_the_first_death_the_next_run_follows_at_once() -> None:
    story = running()

    assert [Spawn("a", 2, config())] == story.exited()
    assert ["kernel.died", "kernel.restarting"] == story.last_events


def test_a_death_is_remembered_with_its_run() -> None:
    story = running()
    story.now += 12.5
    story.exited(KILLED)

    assert Death(1, 1001, story.now, 12.5, KILLED) == story.kernel().last_death
    assert 1 == story.kernel().restarts


def test_the_last_twenty_deaths_are_remembered() -> None:
    story = running(backoff=BackoffConfig(initial=0.0, next=0.0), max_restarts=0)
    for _ in range(23):
        story.exited(KILLED)
        story.runs()

    assert list(range(4, 24)) == [death.generation for death in story.kernel().deaths]


def test_delays_grow_with_each_death_in_a_row() -> None:
    story = running(backoff=PATIENT, max_restarts=0)
    waited = []
    for _ in range(4):
        story.exited(CRASHED)
        phase = story.kernel().phase
        assert isinstance(phase, Backoff)
        waited.append((phase.attempt, phase.delay, phase.until - story.now))
        story.tick()
        story.runs()

    assert [(1, 1.0, 1.0), (2, 4.0, 4.0), (3, 8.0, 8.0), (4, 16.0, 16.0)] == waited


def test_no_run_begins_before_its_delay_is_over() -> None:
    story = running(backoff=PATIENT)
    story.exited()

    assert [] == story.tick(0.99)
    assert [Spawn] == [type(action) for action in story.tick(0.01)]


def test_a_run_of_a_whole_window_ends_the_streak() -> None:
    story = running(backoff=PATIENT, restart_window=30.0)
    story.exited()
    die_again(story, after=29.9)
    assert 2 == story.kernel().streak
    die_again(story, after=30.0)

    assert 1 == story.kernel().streak
    assert 1.0 == story.kernel().phase.delay  # type: ignore[union-attr]


@pytest.mark.parametrize("order", [Restart("a"), Stop("a")])
def test_a_run_of_a_whole_window_ends_the_streak_though_an_order_ends_it(order: Restart | Stop) -> None:
    story = running(backoff=PATIENT, restart_window=30.0)
    story.exited()
    die_again(story, after=1.0)
    story.tick()
    story.runs()
    story.now += 29.9
    story.tell(order)
    story.exited(CLEAN)
    assert 2 == story.kernel().streak

    story.tell(Start("a"))
    story.runs()
    story.now += 30.0
    story.tell(order)
    story.exited(CLEAN)
    assert 0 == story.kernel().streak


def test_the_time_that_a_spawn_took_to_fail_ends_no_streak() -> None:
    story = running(backoff=PATIENT, restart_window=30.0)
    story.exited()
    story.tick()
    story.tell(Stop("a"))
    story.now += 1000
    story.spawn_failed()

    assert 1 == story.kernel().streak


def test_the_time_that_a_spawn_took_is_not_time_alive() -> None:
    story = running(backoff=PATIENT, restart_window=30.0)
    story.exited()
    story.tick()
    story.now += 1000
    story.spawn_failed()

    assert 2 == story.kernel().streak
    assert 0.0 == story.kernel().last_death.uptime  # type: ignore[union-attr]


def test_one_death_more_than_max_restarts_in_the_window_is_a_failure() -> None:
    story = running(max_restarts=2, restart_window=120.0)
    story.exited(CRASHED)
    die_again(story, after=1.0)
    assert "Failed" != story.phase
    die_again(story, after=1.0)

    reason = "died 3 times within 120 s, last with exit code 7"
    assert Failed(reason) == story.kernel().phase
    assert ["kernel.died", "kernel.failed"] == story.last_events
    assert {"reason": reason} == story.said("kernel.failed").fields
    assert Want.UP is story.kernel().want
    assert story.deadline is None


def test_a_failed_kernel_has_no_connection_file() -> None:
    story = running(max_restarts=1)
    story.exited()
    story.runs()

    assert [Withdraw("a")] == story.exited()


def test_deaths_outside_the_window_are_forgiven() -> None:
    story = running(max_restarts=2, restart_window=50.0)
    story.exited()
    for _ in range(6):
        die_again(story, after=26.0)
        assert "Failed" != story.phase
        assert len(story.kernel().failures) <= 2


def test_without_a_limit_a_kernel_is_never_given_up() -> None:
    story = running(max_restarts=0)
    story.exited()
    for _ in range(50):
        die_again(story, after=0.0)

    assert "Backoff" == story.phase


def test_a_slow_crash_loop_ends_too() -> None:
    story = running(max_restarts=5, restart_window=120.0)
    for _ in range(6):
        if story.phase != "Running":
            die_again(story, after=10.0)
        else:
            story.exited()

    assert "Failed" == story.phase


@pytest.mark.parametrize("cause", [Cause.CRASHED, Cause.PORT_TAKEN, Cause.UNKNOWN])
def test_a_spawn_that_fails_is_a_death_like_any_other(cause: Cause) -> None:
    story = Story()
    story.load(config(backoff=PATIENT))
    story.spawn_failed(Exit(cause))

    assert Backoff(story.now + 1.0, 1.0, 1) == story.kernel().phase
    assert cause.value == story.said("kernel.died").fields["cause"]
    assert story.said("kernel.died").pid is None


def test_a_command_that_is_not_there_is_not_tried_again() -> None:
    story = Story()
    story.load(config(max_restarts=0))

    assert [Withdraw("a")] == story.spawn_failed(NOT_FOUND)
    assert Failed("no such file: /nowhere/python") == story.kernel().phase


def test_a_clean_exit_is_restarted_by_default() -> None:
    story = running()

    assert [Spawn("a", 2, config())] == story.exited(CLEAN)


@pytest.mark.parametrize("restart", ["on-failure", "never"])
def test_a_clean_exit_is_a_stop_where_the_file_says_so(restart: str) -> None:
    story = running(restart=restart)

    assert [Withdraw("a")] == story.exited(CLEAN)
    assert Stopped() == story.kernel().phase
    assert Want.DOWN is story.kernel().want
    assert ["kernel.died", "kernel.stopped"] == story.last_events


def test_a_crash_is_restarted_on_failure() -> None:
    story = running(restart="on-failure")

    assert [Spawn] == [type(action) for action in story.exited(CRASHED)]


def test_a_crash_is_a_failure_where_nothing_is_restarted() -> None:
    story = running(restart="never")
    story.exited(CRASHED)

    assert Failed('ended with exit code 7, and restart = "never"') == story.kernel().phase


def test_edited_rules_hold_for_the_next_death() -> None:
    story = running(restart="always")
    story.load(config(restart="never"))
    story.exited(CRASHED)

    assert "Failed" == story.phase


def test_a_kernel_that_is_not_ready_in_time_is_killed_and_tried_again() -> None:
    story = Story()
    story.load(config(start_timeout=5.0))
    story.spawned()
    assert story.now + 5.0 == story.deadline

    assert [SignalGroup("a", 1, SIGKILL)] == story.tick()
    assert [Spawn] == [type(action) for action in story.exited(KILLED)]
    died = story.said("kernel.died")
    assert ("start-timeout", "SIGKILL", 5.0) == tuple(died.fields[k] for k in ("cause", "signal", "uptime"))
    assert 1 == len(story.kernel().failures)


def test_the_time_to_get_ready_runs_from_the_spawn() -> None:
    story = Story()
    story.load(config(start_timeout=5.0))
    story.now += 60
    assert 160.0 + LAUNCH_PATIENCE - 60.0 == story.deadline

    story.spawned()
    assert story.now + 5.0 == story.deadline


def test_a_ready_kernel_has_no_deadline() -> None:
    story = running(start_timeout=5.0)

    assert story.deadline is None
    assert [] == story.tick(1000)
    assert "Running" == story.phase


def test_a_kernel_that_never_gets_ready_is_given_up() -> None:
    story = Story()
    story.load(config(start_timeout=5.0, max_restarts=2))
    for _ in range(3):
        if story.phase == "Backoff":
            story.tick()
        story.spawned()
        story.tick()
        story.exited()

    assert "Failed" == story.phase
    assert "died 3 times within 120 s, last with SIGKILL (start-timeout)" == story.kernel().phase.reason  # type: ignore[union-attr]


def test_at_most_so_many_start_at_a_time_and_the_oldest_is_next() -> None:
    story = Story()
    configs = [config(name) for name in "abcde"]
    actions = story.load(*configs, max_concurrent_starts=2)
    assert ["a", "b"] == [action.kernel for action in actions]

    assert [] == story.spawned("b")
    assert ["c"] == [action.kernel for action in story.ready("b")]
    assert [Withdraw("a"), Spawn("d", 1, config("d"))] == story.spawn_failed(NOT_FOUND, "a")
    assert "Queued" == type(story.kernel("e").phase).__name__


def test_the_kernel_that_waits_longest_is_started_first() -> None:
    story = Story()
    story.load(
        config("a", autostart=False), config("b", autostart=False), config("c"), max_concurrent_starts=1
    )

    story.tell(Start("b"))
    story.now += 1
    story.tell(Start("a"))

    story.spawned("c")
    assert ["b"] == [action.kernel for action in story.ready("c")]


def test_a_raised_limit_starts_those_that_wait() -> None:
    story = Story()
    configs = [config(name) for name in "abc"]
    story.load(*configs, max_concurrent_starts=1)

    assert ["b", "c"] == [action.kernel for action in story.load(*configs, max_concurrent_starts=3)]


def test_a_lowered_limit_waits_for_those_that_start() -> None:
    story = Story()
    configs = [config(name) for name in "abcd"]
    story.load(*configs, max_concurrent_starts=3)
    assert [] == story.load(*configs, max_concurrent_starts=1)

    story.runs("a")
    story.runs("b")
    assert "Queued" == type(story.kernel("d").phase).__name__
    story.runs("c")
    assert "Starting" == type(story.kernel("d").phase).__name__


def test_a_late_alarm_settles_every_deadline_that_has_passed() -> None:
    story = Story()
    story.load(config("a", backoff=PATIENT), config("b", start_timeout=2.0), config("c", stop_timeout=3.0))
    story.spawn_failed(CRASHED, "a")
    story.spawned("b")
    story.runs("c")

    story.tell(Stop("c"))
    story.now += 1000

    actions = story.tell(Tick())
    assert ["SignalGroup", "SignalGroup", "Spawn"] == sorted(type(action).__name__ for action in actions)


def test_an_alarm_with_nothing_due_changes_nothing() -> None:
    story = running()
    before = story.state

    assert [] == story.tell(Tick())
    assert before is story.state


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
    assert story.deadline == story.now + LAUNCH_PATIENCE
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


def test_a_launch_that_is_never_answered_is_tried_again_and_what_comes_of_it_too_late_is_ended() -> None:
    story = Story()
    story.load(config(backoff=PATIENT))

    assert [] == story.tick()
    assert LAUNCH_PATIENCE == story.now - 100.0
    assert "Backoff" == story.phase
    assert "not answered within 120 s" in str(story.published[-2].fields["detail"])
    assert () == story.kernel().failures
    assert [SignalGroup("a", 1, SIGKILL)] == story.tell(Spawned("a", 1, process(1)))
    assert [Spawn("a", 2, config(backoff=PATIENT))] == story.tick()
    assert [SignalGroup("a", 1, SIGKILL)] == story.tell(Spawned("a", 1, process(1)))
    story.runs()
    assert "Running" == story.phase
    assert [] == story.tell(Spawned("a", 2, process(2)))


@pytest.mark.parametrize(
    ("order", "then", "phase"),
    [(Stop("a"), [Withdraw("a")], "Stopped"), (Restart("a"), [Spawn("a", 2, config())], "Starting")],
)
def test_a_stop_while_a_launch_is_in_flight_waits_for_its_answer_no_longer_than_the_launch_may_take(
    order: Stop | Restart, then: list[object], phase: str
) -> None:
    story = Story()
    story.load(config())
    story.now += 50
    story.tell(order)

    assert then == story.tick()
    assert LAUNCH_PATIENCE == story.now - 100.0
    assert phase == story.phase
    assert [SignalGroup("a", 1, SIGKILL)] == story.tell(Spawned("a", 1, process(1)))


def test_of_a_kernel_that_is_gone_from_the_file_a_process_that_comes_too_late_is_ended() -> None:
    story = Story()
    story.load(config())
    story.load()

    assert [Forget("a")] == story.tick()
    assert [SignalGroup("a", 1, SIGKILL)] == story.tell(Spawned("a", 1, process(1)))


def test_an_edited_start_timeout_does_not_move_the_end_of_a_launch_in_flight() -> None:
    story = Story()
    story.load(config())
    story.load(config(start_timeout=1.0))

    assert story.deadline == story.now + LAUNCH_PATIENCE


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


def test_a_taken_port_never_counts_against_the_budget() -> None:
    story = Story()
    story.load(config(max_restarts=1, backoff=BackoffConfig(initial=1.0, next=1.0, jitter=0.0)))
    for _ in range(5):
        story.spawn_failed(Exit(Cause.PORT_TAKEN))
        story.tick()

    assert ("Starting", ()) == (story.phase, story.kernel().failures)


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


# No room


LACK = "needs 10 descriptors, 3 are left: raise LimitNOFILE"


def without_room() -> Story:
    story = Story()
    story.load(config())
    assert [AwaitRoom("a", 1, config())] == story.tell(NoRoom("a", 1, LACK))
    return story


def test_a_kernel_for_which_there_is_no_room_waits_and_says_so_and_starts_when_there_is() -> None:
    story = without_room()

    assert ("Waiting", ["kernel.waiting"]) == (story.phase, story.last_events)
    told = story.said("kernel.waiting")
    assert ({"reason": LACK}, "error") == (told.fields, told.level)
    assert ((), 0) == (story.kernel().failures, story.kernel().restarts)
    assert None is story.deadline
    assert [] == story.tell(RoomMade("a", 0))
    assert [Spawn("a", 2, config())] == story.tell(RoomMade("a", 1))


def test_a_kernel_that_waits_for_room_takes_nobodys_turn() -> None:
    story = Story()
    story.load(config(), config("b"), max_concurrent_starts=1)

    assert [AwaitRoom("a", 1, config()), Spawn("b", 1, config("b"))] == story.tell(NoRoom("a", 1, LACK))


def test_a_kernel_that_waits_for_room_is_stopped_at_once_and_the_room_starts_nothing() -> None:
    story = without_room()

    assert [Withdraw("a")] == story.tell(Stop("a"))
    assert ["kernel.stopped"] == story.last_events
    assert [] == story.tell(RoomMade("a", 1))


def test_an_order_to_start_tries_again_at_once() -> None:
    assert [Spawn("a", 2, config())] == without_room().tell(Start("a"))


def test_a_stop_that_comes_before_no_room_is_told_is_carried_out() -> None:
    story = Story()
    story.load(config())
    story.tell(Stop("a"))

    assert [Withdraw("a")] == story.tell(NoRoom("a", 1, LACK))
    assert ("Stopped", ["kernel.stopped"]) == (story.phase, story.last_events)


def test_a_restart_that_comes_before_no_room_is_told_waits_for_room() -> None:
    story = Story()
    story.load(config())
    story.tell(Restart("a"))

    assert [AwaitRoom("a", 1, config())] == story.tell(NoRoom("a", 1, LACK))


def test_that_there_was_no_room_for_a_run_that_lives_changes_nothing() -> None:
    story = running()

    assert [] == story.tell(NoRoom("a", 1, LACK))
    assert "Running" == story.phase


def test_of_fifty_kernels_the_stubborn_are_killed_together_within_two_seconds_of_their_time() -> None:
    story = Story()
    names = [f"k{number}" for number in range(50)]
    story.load(*(config(name, stop_timeout=5.0) for name in names), max_concurrent_starts=50)
    for name in names:
        story.runs(name)
    began = story.now
    story.tell(Shutdown())
    for name in names[5:]:
        story.exited(CLEAN, name)

    assert [SignalGroup(name, 1, SIGTERM) for name in names[:5]] == story.tick()
    assert [SignalGroup(name, 1, SIGKILL) for name in names[:5]] == story.tick()
    assert story.now - began < 5.0 + 2.0
