"""Files: comparing what is declared with what was launched."""

from __future__ import annotations

from math import inf
from signal import SIGTERM

import pytest

from supervisor.core.actions import Apply, AskToExit, Forget, SignalGroup, Spawn, WatchIdle, Withdraw
from supervisor.core.events import BecameIdle, Restart, Start, Stop
from supervisor.core.lifecycle import pending_keys
from supervisor.core.model import Stopped, Want, is_settled, launched_of
from supervisor.settings.config import OutputConfig, PortsConfig
from tests.core.story import CRASHED, KILLED, NOT_FOUND, Story, config, declare, running

NEW = {"cwd": "/elsewhere"}


LAUNCH_EDITS = [
    {"kernelspec": "other"},
    {"argv": ("python", "-f", "{connection_file}")},
    {"extra_arguments": ("--debug",)},
    {"cwd": "/elsewhere"},
    {"env": {"A": "1"}},
    {"transport": "ipc"},
    {"ip": "127.0.0.2"},
    {"ports": PortsConfig(shell=5000)},
]


OTHER_EDITS = [
    {"interrupt_mode": "message"},
    {"autostart": False},
    {"on_config_change": "manual"},
    {"restart": "never"},
    {"max_restarts": 9},
    {"restart_window": 9.0},
    {"start_timeout": 9.0},
    {"stop_timeout": 9.0},
    {"hold_ports": False},
    {"output": OutputConfig(backups=1)},
]


def test_a_first_file_starts_what_starts_by_itself() -> None:
    story = Story()

    assert [Spawn("a", 1, config("a"))] == story.load(
        config("a"), config("b", autostart=False), config("c", enabled=False)
    )
    assert ["a", "b", "c"] == list(story.state.kernels)
    assert [Want.UP, Want.DOWN, Want.DOWN] == [kernel.want for kernel in story.state.kernels.values()]


def test_the_kernels_are_kept_in_the_order_of_the_file() -> None:
    story = Story()
    story.load(config("a"), config("b"))
    story.load(config("c"), config("b"), config("a"))

    assert ["c", "b", "a"] == list(story.state.kernels)


@pytest.mark.parametrize("phase", ["launching", "starting", "running", "stopping", "backoff", "failed"])
def test_the_same_file_twice_does_nothing(phase: str) -> None:
    story = Story()
    story.load(config())
    if phase in ("starting", "running", "stopping"):
        story.spawned()
    if phase in ("running", "stopping"):
        story.ready()
    if phase == "stopping":
        story.tell(Stop("a"))
    if phase in ("backoff", "failed"):
        story.spawn_failed(NOT_FOUND if phase == "failed" else CRASHED)
    before = story.state

    assert [] == story.load(config())
    assert before == story.state
    assert [] == story.last_published


@pytest.mark.parametrize("edit", LAUNCH_EDITS, ids=lambda edit: next(iter(edit)))
def test_a_key_that_the_process_cannot_change_restarts_it_with_the_new_settings(edit: dict) -> None:  # type: ignore[type-arg]
    story = running()
    new = config(**edit)

    assert [Apply("a", new), AskToExit("a", 1, restart=True)] == story.load(new)
    assert [next(iter(edit))] == list(pending_keys(story.kernel()))
    assert [Spawn("a", 2, new)] == story.exited()
    story.runs()
    assert () == pending_keys(story.kernel())


@pytest.mark.parametrize("edit", OTHER_EDITS, ids=lambda edit: next(iter(edit)))
def test_any_other_key_is_in_force_without_the_kernel_noticing(edit: dict) -> None:  # type: ignore[type-arg]
    story = running()
    new = config(**edit)

    assert [Apply("a", new)] == story.load(new)
    assert [] == story.last_published
    assert "Running" == story.phase
    assert () == pending_keys(story.kernel())


def test_only_the_edited_kernel_is_touched() -> None:
    story = Story()
    story.load(config("a"), config("b"))
    story.runs("a")
    story.runs("b")
    actions = story.load(config("a"), config("b", **NEW))

    assert {"b"} == {action.kernel for action in actions}


def test_an_edit_during_the_spawn_is_told_to_the_process_once_it_exists() -> None:
    story = Story()
    story.load(config())
    new = config(interrupt_mode="message")

    assert [] == story.load(new)
    assert [Apply("a", new)] == story.spawned()


def test_an_edited_launch_key_during_the_spawn_restarts_it_once_it_exists() -> None:
    story = Story()
    story.load(config())
    new = config(**NEW)

    assert [] == story.load(new)
    assert [AskToExit("a", 1, restart=True)] == story.spawned()
    assert [Spawn("a", 2, new)] == story.exited()


def test_an_edit_while_stopping_is_launched_at_the_return() -> None:
    story = running()
    story.tell(Restart("a"))
    story.load(config(**NEW))
    story.load(config(cwd="/third"))

    assert [Spawn("a", 2, config(cwd="/third"))] == story.exited()


def test_an_edit_taken_back_while_stopping_still_brings_a_new_run() -> None:
    story = running()
    story.load(config(**NEW))
    story.load(config())

    assert [Spawn("a", 2, config())] == story.exited()


def test_an_edit_of_a_stopped_kernel_waits_for_its_start() -> None:
    story = running()
    story.tell(Stop("a"))
    story.exited()
    new = config(**NEW)

    assert [] == story.load(new)
    assert Stopped() == story.kernel().phase
    assert [Spawn("a", 2, new)] == story.tell(Start("a"))


def test_autostart_starts_nothing_that_is_declared_already() -> None:
    story = Story()
    story.load(config(autostart=False))

    assert [] == story.load(config(autostart=True))
    assert Stopped() == story.kernel().phase


def test_an_edited_launch_key_ends_the_waiting_after_a_death() -> None:
    story = running()
    story.exited()
    story.runs()
    story.exited()
    assert "Backoff" == story.phase
    new = config(**NEW)

    assert [Spawn("a", 3, new)] == story.load(new)
    assert () == story.kernel().failures


def test_other_keys_do_not_end_the_waiting_after_a_death() -> None:
    story = running()
    story.exited()
    story.runs()
    story.exited()
    phase = story.kernel().phase

    assert [] == story.load(config(max_restarts=9))
    assert phase == story.kernel().phase


def test_a_failed_kernel_is_mended_by_an_edited_launch_key_and_by_nothing_else() -> None:
    story = Story()
    story.load(config(kernelspec="gone"))
    story.spawn_failed(NOT_FOUND)
    assert [] == story.load(config(kernelspec="gone", max_restarts=9))
    assert "Failed" == story.phase

    assert [Spawn("a", 2, config())] == story.load(config())
    assert ((), 0) == (story.kernel().failures, story.kernel().streak)


def test_a_failed_kernel_that_was_stopped_is_not_started_by_an_edit() -> None:
    story = Story()
    story.load(config(kernelspec="gone"))
    story.spawn_failed(NOT_FOUND)
    story.tell(Stop("a"))

    assert [] == story.load(config())
    assert "Failed" == story.phase


def test_an_edit_forgives_the_deaths_before_it() -> None:
    story = running()
    story.exited()
    story.runs()
    story.load(config(**NEW))

    assert ((), 0) == (story.kernel().failures, story.kernel().streak)


def test_manual_leaves_the_kernel_until_somebody_restarts_it() -> None:
    story = running(on_config_change="manual")
    new = config(on_config_change="manual", **NEW)

    assert [Apply("a", new)] == story.load(new)
    assert ("cwd",) == pending_keys(story.kernel())
    assert [AskToExit("a", 1, restart=True)] == story.tell(Restart("a"))
    assert [Spawn("a", 2, new)] == story.exited()


def test_a_death_gives_a_manual_kernel_its_new_settings_too() -> None:
    story = running(on_config_change="manual")
    new = config(on_config_change="manual", **NEW)
    story.load(new)

    assert [Spawn("a", 2, new)] == story.exited(KILLED)


def test_an_edit_taken_back_is_no_longer_pending() -> None:
    story = running(on_config_change="manual")
    story.load(config(on_config_change="manual", **NEW))
    story.load(config(on_config_change="manual"))

    assert () == pending_keys(story.kernel())


def test_the_end_of_manual_brings_what_was_pending() -> None:
    story = running(on_config_change="manual")
    story.load(config(on_config_change="manual", **NEW))
    new = config(**NEW)

    assert [Apply("a", new), AskToExit("a", 1, restart=True)] == story.load(new)


def test_when_idle_restarts_the_kernel_once_it_executes_nothing() -> None:
    story = running()
    new = config(on_config_change="when-idle", **NEW)

    assert [Apply("a", new), WatchIdle("a", 1)] == story.load(new)
    assert "Running" == story.phase
    story.now += 60
    assert [AskToExit("a", 1, restart=True)] == story.tell(BecameIdle("a", 1))
    assert [Spawn("a", 2, new)] == story.exited()


def test_when_idle_is_watched_for_once_whatever_else_is_edited() -> None:
    story = running()
    story.load(config(on_config_change="when-idle", **NEW))
    other = config(on_config_change="when-idle", max_restarts=9, **NEW)

    assert [Apply("a", other)] == story.load(other)


def test_an_idle_kernel_whose_edit_was_taken_back_is_left_alone() -> None:
    story = running()
    story.load(config(on_config_change="when-idle", **NEW))
    story.load(config(on_config_change="when-idle"))

    assert [] == story.tell(BecameIdle("a", 1))
    assert "Running" == story.phase


def test_an_idle_kernel_that_has_become_manual_is_left_alone() -> None:
    story = running()
    story.load(config(on_config_change="when-idle", **NEW))
    story.load(config(on_config_change="manual", **NEW))

    assert [] == story.tell(BecameIdle("a", 1))
    assert [WatchIdle("a", 1)] == story.load(config(on_config_change="when-idle", **NEW))[1:]


def test_a_kernel_that_is_not_ready_yet_executes_nothing() -> None:
    story = Story()
    story.load(config())
    story.spawned()
    new = config(on_config_change="when-idle", **NEW)

    assert [Apply("a", new), AskToExit("a", 1, restart=True)] == story.load(new)


def test_an_idle_kernel_that_is_being_stopped_stays_on_its_way() -> None:
    story = running()
    story.load(config(on_config_change="when-idle", **NEW))
    story.tell(Stop("a"))

    assert [] == story.tell(BecameIdle("a", 1))
    assert [Withdraw("a")] == story.exited()


def test_a_longer_start_timeout_holds_for_the_start_under_way() -> None:
    story = Story()
    story.load(config(start_timeout=5.0))
    story.spawned()
    spawned_at = story.now
    story.now += 4

    story.load(config(start_timeout=20.0))
    assert spawned_at + 20.0 == story.deadline


def test_a_shorter_start_timeout_that_has_passed_is_noticed_at_once() -> None:
    story = Story()
    story.load(config(start_timeout=50.0))
    story.spawned()
    story.now += 10
    story.load(config(start_timeout=5.0))

    assert story.deadline is not None
    assert story.deadline < story.now
    assert ["SignalGroup"] == [type(action).__name__ for action in story.tick()]


def test_an_endless_start_timeout_can_be_ended_by_an_edit() -> None:
    story = Story()
    story.load(config(start_timeout=inf))
    story.spawned()
    assert story.deadline is None
    story.now += 1000

    story.load(config(start_timeout=5.0))
    assert story.now + 5.0 == story.deadline


def test_an_edit_of_another_key_does_not_move_the_deadline_of_a_start() -> None:
    story = Story()
    story.load(config(start_timeout=5.0))
    story.spawned()
    deadline = story.deadline
    story.now += 4

    story.load(config(start_timeout=5.0, max_restarts=9))
    assert deadline == story.deadline


def test_a_shorter_stop_timeout_holds_for_the_stop_under_way() -> None:
    story = running(stop_timeout=3600.0)
    story.tell(Stop("a"))
    asked_at = story.now
    story.now += 1

    story.load(config(stop_timeout=5.0))
    assert asked_at + 5.0 == story.deadline


def test_a_stop_timeout_does_not_move_the_steps_after_the_asking() -> None:
    story = running(stop_timeout=10.0)
    story.tell(Stop("a", now=True))
    deadline = story.deadline

    story.load(config(stop_timeout=100.0))
    assert deadline == story.deadline


def test_where_a_kernel_is_settled() -> None:
    story = Story()
    story.load(config(autostart=False))
    assert is_settled(story.kernel())
    assert launched_of(story.kernel()) is None
    story.tell(Start("a"))
    assert not is_settled(story.kernel())
    story.spawned()
    assert not is_settled(story.kernel())
    story.ready()
    assert is_settled(story.kernel())
    story.tell(declare(config(**NEW)))
    assert not is_settled(story.kernel())


def test_a_kernel_gone_from_the_file_is_stopped_and_forgotten() -> None:
    story = running()

    assert [AskToExit("a", 1)] == story.load()
    assert {"reason": "removed"} == story.said("kernel.stopping").fields
    assert [] == story.load()
    assert [Forget("a")] == story.exited()
    assert ["kernel.stopped", "kernel.removed"] == story.last_events
    assert {} == dict(story.state.kernels)


def test_a_kernel_without_a_run_is_forgotten_at_once() -> None:
    story = running()
    story.tell(Stop("a"))
    story.exited()

    assert [Forget("a")] == story.load()
    assert ["kernel.removed"] == story.last_events


def test_a_kernel_that_leaves_during_its_spawn_is_stopped_when_it_exists() -> None:
    story = Story()
    story.load(config())

    assert [] == story.load()
    assert [AskToExit("a", 1)] == story.spawned()
    assert [Forget("a")] == story.exited()


def test_a_kernel_that_leaves_during_a_spawn_that_fails_is_forgotten() -> None:
    story = Story()
    story.load(config())
    story.load()

    assert [Forget("a")] == story.spawn_failed()


def test_the_ladder_goes_on_for_a_kernel_that_has_left() -> None:
    story = running(stop_timeout=3.0)
    story.load()

    assert story.now + 3.0 == story.deadline
    assert [SignalGroup("a", 1, SIGTERM)] == story.tick()


def test_a_kernel_that_comes_back_while_stopping_runs_again_after_its_exit() -> None:
    story = running()
    story.load()
    new = config(**NEW)

    assert [Apply("a", new)] == story.load(new)
    assert [Spawn("a", 2, new)] == story.exited()


def test_a_kernel_that_comes_back_without_autostart_stays_down() -> None:
    story = running()
    story.load()
    story.load(config(autostart=False))

    assert [Withdraw("a")] == story.exited()
    assert Stopped() == story.kernel().phase


def test_a_kernel_that_comes_back_disabled_stays_down() -> None:
    story = running()
    story.load()
    story.load(config(enabled=False))

    assert [Withdraw("a")] == story.exited()


def test_a_kernel_that_comes_back_after_it_was_forgotten_is_a_new_kernel() -> None:
    story = running()
    story.load()
    story.exited()

    assert [Spawn("a", 1, config())] == story.load(config())


def test_disabling_stops_and_enabling_starts() -> None:
    story = running()
    off = config(enabled=False)
    assert [Apply("a", off), AskToExit("a", 1)] == story.load(off)
    assert {"reason": "disabled"} == story.said("kernel.stopping").fields
    assert [Withdraw("a")] == story.exited()

    assert [Spawn("a", 2, config())] == story.load(config())


def test_enabling_again_while_stopping_brings_the_kernel_back() -> None:
    story = running()
    story.load(config(enabled=False))
    story.load(config())

    assert [Spawn("a", 2, config())] == story.exited()


def test_enabling_starts_nothing_without_autostart() -> None:
    story = Story()
    story.load(config(enabled=False, autostart=False))

    assert [] == story.load(config(autostart=False))
    assert Stopped() == story.kernel().phase


def test_disabling_ends_the_waiting_after_a_death() -> None:
    story = running()
    story.exited()
    story.runs()
    story.exited()

    assert [Withdraw("a")] == story.load(config(enabled=False))
    assert story.deadline is None


def test_a_disabled_kernel_that_is_edited_stays_down() -> None:
    story = Story()
    story.load(config(enabled=False))

    assert [] == story.load(config(enabled=False, **NEW))
    assert Want.DOWN is story.kernel().want


def test_a_failed_kernel_is_tried_again_when_it_is_enabled_again() -> None:
    story = Story()
    story.load(config())
    story.spawn_failed(NOT_FOUND)
    story.load(config(enabled=False))
    assert "Failed" == story.phase

    assert [Spawn("a", 2, config())] == story.load(config())
