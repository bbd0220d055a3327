"""Kernels that leave the file and come back, and those that it disables and enables."""

from __future__ import annotations

from signal import SIGTERM

from supervisor.core.actions import Apply, AskToExit, Forget, SignalGroup, Spawn, Withdraw
from supervisor.core.events import Stop
from supervisor.core.model import Stopped, Want
from tests.core.story import NOT_FOUND, Story, config, running

NEW = {"cwd": "/elsewhere"}


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
