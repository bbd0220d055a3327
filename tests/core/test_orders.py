"""Orders: which are carried out, and which are refused with what reason."""

from __future__ import annotations

from signal import SIGKILL, SIGUSR1

import pytest
from msgspec.structs import replace

from supervisor.core.actions import InterruptKernel, Refuse, SignalGroup, Spawn
from supervisor.core.events import (
    Event,
    Interrupt,
    Order,
    Reset,
    Restart,
    SendSignal,
    Shutdown,
    Start,
    Stop,
)
from supervisor.core.model import Want
from tests.core.story import CRASHED, Story, config, running

ORDERS: list[Order] = [Start("a"), Stop("a"), Restart("a"), Reset("a"), Interrupt("a"), SendSignal("a", 10)]
STARTS: list[Event] = [Start("a"), Restart("a"), Reset("a"), Restart("a", now=True, new_ports=True)]


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_for_an_undeclared_kernel_is_refused(order: Event) -> None:
    story = Story()

    assert [Refuse("a", 'no kernel "a" is declared')] == story.tell(order)
    assert Story().state == story.state


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_to_another_run_than_the_latest_is_refused(order: Order) -> None:
    story = running()
    before = story.state

    refusal = 'kernel "a" is at run 1, not 2: look at it and order anew'
    assert [Refuse("a", refusal)] == story.tell(replace(order, if_generation=2))
    assert before == story.state
    assert story.tell(replace(order, if_generation=1)) == running().tell(order)


def test_of_two_restarts_of_one_run_there_comes_one() -> None:
    story = running()
    restart = Restart("a", if_generation=1)
    assert [] != story.tell(restart)
    assert [] == story.tell(restart)
    story.exited()
    assert 2 == story.kernel().generation

    assert isinstance(story.tell(restart)[0], Refuse)


@pytest.mark.parametrize("order", STARTS)
def test_a_kernel_that_has_left_the_file_is_not_started_again(order: Event) -> None:
    story = running()
    story.load()

    refusal = Refuse("a", 'kernel "a" has left the file and is being stopped')
    assert [refusal] == story.tell(order)
    assert Want.DOWN is story.kernel().want


@pytest.mark.parametrize("order", STARTS)
def test_a_disabled_kernel_is_not_started_by_an_order(order: Event) -> None:
    story = Story()
    story.load(config(enabled=False))

    assert [Refuse("a", 'kernel "a" is disabled: set enabled = true in the file')] == story.tell(order)
    assert "Stopped" == story.phase


@pytest.mark.parametrize("order", STARTS)
def test_a_supervisor_that_is_stopping_starts_nothing(order: Event) -> None:
    story = running()
    story.tell(Shutdown())

    assert [Refuse("a", "the supervisor is stopping")] == story.tell(order)
    story.exited()
    assert [Refuse("a", "the supervisor is stopping")] == story.tell(order)
    assert "Stopped" == story.phase


def test_a_supervisor_that_is_stopping_still_kills_on_order() -> None:
    story = running()
    story.tell(Shutdown())

    assert [SignalGroup("a", 1, SIGKILL)] == story.tell(Stop("a", now=True))


def test_only_a_ready_kernel_is_interrupted() -> None:
    story = Story()
    story.load(config())
    refusal = Refuse("a", 'kernel "a" is not running')

    assert [refusal] == story.tell(Interrupt("a"))
    story.spawned()
    assert [refusal] == story.tell(Interrupt("a"))
    story.ready()
    assert [InterruptKernel("a", 1)] == story.tell(Interrupt("a"))
    assert ["kernel.interrupted"] == story.last_events


def test_a_signal_goes_to_whatever_process_there_is() -> None:
    story = Story()
    story.load(config())

    assert [Refuse("a", 'kernel "a" has no process')] == story.tell(SendSignal("a", SIGUSR1))
    story.spawned()
    assert [SignalGroup("a", 1, SIGUSR1)] == story.tell(SendSignal("a", SIGUSR1))
    assert {"signum": SIGUSR1} == story.said("kernel.signalled").fields
    story.tell(Stop("a"))
    assert [SignalGroup("a", 1, SIGUSR1)] == story.tell(SendSignal("a", SIGUSR1))


def test_a_reset_clears_the_failures_and_starts() -> None:
    story = running(max_restarts=1)
    story.exited(CRASHED)
    story.runs()
    story.exited(CRASHED)
    assert "Failed" == story.phase

    assert [Spawn("a", 3, config(max_restarts=1))] == story.tell(Reset("a"))
    assert ((), 0) == (story.kernel().failures, story.kernel().streak)


def test_a_start_in_the_delay_before_a_restart_does_not_forget_the_deaths() -> None:
    story = running()
    story.exited()
    story.runs()
    story.exited()
    assert "Backoff" == story.phase

    assert [Spawn("a", 3, config())] == story.tell(Start("a"))
    assert 2 == len(story.kernel().failures)
    assert 2 == story.kernel().streak
