"""Files: comparing what is declared with what was launched."""

from __future__ import annotations

from math import inf

import pytest

from supervisor.core.actions import Apply, AskToExit, Forget, Spawn, WatchIdle, Withdraw
from supervisor.core.events import BecameIdle, Restart, Stop
from supervisor.core.lifecycle import pending_keys
from supervisor.core.model import Stopped
from supervisor.settings.config import OutputConfig, PortsConfig
from tests.core.story import Story, config, running

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


def test_the_kernels_are_kept_in_the_order_of_the_file() -> None:
    story = Story()
    story.load(config("a"), config("b"))
    story.load(config("c"), config("b"), config("a"))

    assert ["c", "b", "a"] == list(story.state.kernels)


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


def test_an_edit_during_the_spawn_is_told_to_the_process_once_it_exists() -> None:
    story = Story()
    story.load(config())
    new = config(interrupt_mode="message")

    assert [] == story.load(new)
    assert [Apply("a", new)] == story.spawned()


def test_autostart_starts_nothing_that_is_declared_already() -> None:
    story = Story()
    story.load(config(autostart=False))

    assert [] == story.load(config(autostart=True))
    assert Stopped() == story.kernel().phase


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


def test_a_kernel_that_is_not_ready_yet_executes_nothing() -> None:
    story = Story()
    story.load(config())
    story.spawned()
    new = config(on_config_change="when-idle", **NEW)

    assert [Apply("a", new), AskToExit("a", 1, restart=True)] == story.load(new)


def test_a_longer_start_timeout_holds_for_the_start_under_way() -> None:
    story = Story()
    story.load(config(start_timeout=5.0))
    story.spawned()
    spawned_at = story.now
    story.now += 4

    story.load(config(start_timeout=20.0))
    assert spawned_at + 20.0 == story.deadline


def test_an_endless_start_timeout_can_be_ended_by_an_edit() -> None:
    story = Story()
    story.load(config(start_timeout=inf))
    story.spawned()
    assert story.deadline is None
    story.now += 1000

    story.load(config(start_timeout=5.0))
    assert story.now + 5.0 == story.deadline


def test_a_shorter_stop_timeout_holds_for_the_stop_under_way() -> None:
    story = running(stop_timeout=3600.0)
    story.tell(Stop("a"))
    asked_at = story.now
    story.now += 1

    story.load(config(stop_timeout=5.0))
    assert asked_at + 5.0 == story.deadline


def test_a_kernel_gone_from_the_file_is_stopped_and_forgotten() -> None:
    story = running()

    assert [AskToExit("a", 1)] == story.load()
    assert {"reason": "removed"} == story.said("kernel.stopping").fields
    assert [] == story.load()
    assert [Forget("a")] == story.exited()
    assert ["kernel.stopped", "kernel.removed"] == story.last_events
    assert {} == dict(story.state.kernels)


def test_a_kernel_that_comes_back_without_autostart_stays_down() -> None:
    story = running()
    story.load()
    story.load(config(autostart=False))

    assert [Withdraw("a")] == story.exited()
    assert Stopped() == story.kernel().phase


def test_disabling_stops_and_enabling_starts() -> None:
    story = running()
    off = config(enabled=False)
    assert [Apply("a", off), AskToExit("a", 1)] == story.load(off)
    assert {"reason": "disabled"} == story.said("kernel.stopping").fields
    assert [Withdraw("a")] == story.exited()

    assert [Spawn("a", 2, config())] == story.load(config())


def test_enabling_starts_nothing_without_autostart() -> None:
    story = Story()
    story.load(config(enabled=False, autostart=False))

    assert [] == story.load(config(autostart=False))
    assert Stopped() == story.kernel().phase
