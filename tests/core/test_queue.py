"""Runs that a cluster has wait: they take no slot, can be stopped, and begin when the cluster says so."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from supervisor.core.actions import Adopt, AskToExit, SignalGroup, Spawn, Withdraw
from supervisor.core.events import Began, Enqueued, Exited, Found, Ready, Spawned, Start, Stop, Survivor
from supervisor.core.lifecycle import CANCEL_PATIENCE
from supervisor.core.model import Cause, Exit, JobId, Queue, Reason, Starting, Stopping, Want
from supervisor.settings.config import KernelConfig, SlurmConfig
from tests.core.story import Story, config

HANDED_IN = JobId("ks-a", "ks-a+1+x", "12", "mine")
BEGUN = replace(HANDED_IN, node="n1")


def slurm(name: str = "a", queue_timeout: float = 0.0, **settings: object) -> KernelConfig:
    return config(name, slurm=SlurmConfig(directory="/shared", queue_timeout=queue_timeout), **settings)


def waiting(story: Story, settings: KernelConfig | None = None) -> Story:
    """A kernel whose job is in the queue."""
    story.load(settings or slurm())
    story.tell(Spawned("a", 1, HANDED_IN))
    story.tell(Enqueued("a", 1, HANDED_IN, Queue("Resources")))
    return story


def test_a_job_in_the_queue_takes_no_slot() -> None:
    story = Story()
    story.load(slurm("a"), config("b"), max_concurrent_starts=1)

    begun = story.tell(Spawned("a", 1, HANDED_IN))

    assert [Spawn("b", 1, config("b"))] == begun


def test_a_job_waits_in_the_queue_for_as_long_as_it_takes() -> None:
    story = waiting(Story())

    story.tick(10 * 86400.0)

    assert story.deadline is None
    assert isinstance(story.kernel("a").phase, Starting)


def test_the_time_of_its_start_begins_with_the_job() -> None:
    story = waiting(Story())
    story.now += 5000.0

    story.tell(Began("a", 1, BEGUN))

    assert story.now + 60.0 == story.deadline
    assert [SignalGroup("a", 1, 9)] == story.tick()
    assert Reason.START_TIMEOUT is story.kernel("a").phase.reason  # type: ignore[union-attr]


def test_how_long_it_may_wait_is_counted_from_when_it_was_handed_in() -> None:
    story = waiting(Story(), slurm(queue_timeout=600.0))

    assert [SignalGroup("a", 1, 9)] == story.tick()

    assert 700.0 == story.now


def test_a_start_that_is_edited_goes_on_waiting_without_a_deadline() -> None:
    story = waiting(Story())

    story.load(slurm(start_timeout=5.0))

    assert story.deadline is None


def test_it_is_told_once_for_each_reason() -> None:
    story = waiting(Story())

    story.tell(Enqueued("a", 1, HANDED_IN, Queue("Resources", "2026-01-01T00:00:00.000Z")))
    assert [] == story.last_published
    story.tell(Enqueued("a", 1, HANDED_IN, Queue("Priority")))

    assert [{"job": "12", "reason": "Priority", "estimate": ""}] == [p.fields for p in story.last_published]


def test_a_job_in_the_queue_is_cancelled_at_once() -> None:
    story = waiting(Story())

    assert [SignalGroup("a", 1, 9)] == story.tell(Stop("a"))
    assert [Withdraw("a")] == story.tell(Exited("a", 1, Exit(Cause.CANCELLED)))


def test_a_stop_before_the_job_is_handed_in_cancels_it_as_soon_as_it_is() -> None:
    story = Story()
    story.load(slurm())
    assert [] == story.tell(Stop("a"))

    assert [SignalGroup("a", 1, 9)] == story.tell(Spawned("a", 1, HANDED_IN))


def test_a_job_that_executes_is_asked_first_and_the_cluster_has_time_to_end_it() -> None:
    story = waiting(Story())
    story.tell(Began("a", 1, BEGUN))
    story.tell(Ready("a", 1))

    assert [AskToExit("a", 1)] == story.tell(Stop("a"))
    assert [SignalGroup("a", 1, 15)] == story.tick()
    assert [SignalGroup("a", 1, 9)] == story.tick()

    assert story.now + CANCEL_PATIENCE == story.deadline


def test_what_is_learnt_of_a_job_later_is_kept_whatever_it_does() -> None:
    story = waiting(Story())
    story.tell(Began("a", 1, BEGUN))
    begun = story.deadline
    known = replace(BEGUN, submitted="1700000000")
    story.tell(Began("a", 1, known))

    assert (known, begun) == (story.kernel("a").phase.process, story.deadline)  # type: ignore[union-attr]
    assert [] == story.last_published
    story.tell(Stop("a"))
    story.tell(Began("a", 1, BEGUN))
    assert isinstance(story.kernel("a").phase, Stopping)
    story.tell(Exited("a", 1, Exit(Cause.CANCELLED)))
    assert [] == story.tell(Began("a", 1, BEGUN))
    assert [] == story.tell(Enqueued("a", 1, BEGUN, Queue()))


@pytest.mark.parametrize("cause", [Cause.PREEMPTED, Cause.NODE_FAILED])
def test_what_the_cluster_does_to_a_kernel_does_not_count_against_it(cause: Cause) -> None:
    story = waiting(Story(), slurm(max_restarts=1))
    for generation in range(1, 5):
        story.tell(Began("a", generation, BEGUN))
        story.tell(Ready("a", generation))
        story.tell(Exited("a", generation, Exit(cause)))
        story.tell(Start("a"))
        story.tell(Spawned("a", generation + 1, HANDED_IN))

    assert isinstance(story.kernel("a").phase, Starting)
    assert () == story.kernel("a").failures


def test_a_job_on_record_is_taken_up_without_a_deadline_until_it_is_known_what_it_does() -> None:
    story = Story()
    survivor = Survivor("a", slurm(), 3, Want.UP, HANDED_IN)

    actions = story.tell(Found((survivor,), {"a": slurm()}))

    assert [Adopt("a", 3, HANDED_IN, slurm())] == actions
    assert story.deadline is None
    story.load(slurm())
    assert [] == story.tell(Began("a", 3, BEGUN))
    assert story.now + 60.0 == story.deadline
