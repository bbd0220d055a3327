"""Checks of running kernels: counted, told at the limit, acted upon as the file says."""

from __future__ import annotations

from signal import SIGKILL

import pytest

from supervisor.core.actions import Action, Apply, SignalGroup, Spawn
from supervisor.core.events import Answered, Load, Missed
from supervisor.core.health import is_responsive
from supervisor.core.model import Check
from supervisor.settings.config import HeartbeatConfig, ProbeConfig
from tests.core.story import KILLED, Story, config, declare, running

CHECKS = [Check.HEARTBEAT, Check.PROBE]


def rule(check: Check, misses: int = 3, action: str = "report") -> dict[str, object]:
    """The settings of one check; the other is off."""
    heartbeat = HeartbeatConfig(misses=misses, action=action if check is Check.HEARTBEAT else "off")  # type: ignore[arg-type]
    probe = ProbeConfig(misses=misses, action=action if check is Check.PROBE else "off")  # type: ignore[arg-type]
    return {"heartbeat": heartbeat, "probe": probe}


def edited(check: Check, misses: int = 3, action: str = "report") -> Load:
    return declare(config(**rule(check, misses, action)))


def miss(story: Story, check: Check, times: int = 1) -> list[Action]:
    done: list[Action] = []
    for _ in range(times):
        done += story.tell(Missed("a", 1, check))
    return done


@pytest.mark.parametrize("check", CHECKS)
def test_an_unresponsive_kernel_is_told_once_and_left_alone_by_default(check: Check) -> None:
    story = running(**rule(check))

    assert [] == miss(story, check, 10)
    assert 1 == story.events.count("kernel.unresponsive")
    assert {"check": check.value, "misses": 3} == story.said("kernel.unresponsive").fields
    assert "Running" == story.phase
    assert not is_responsive(story.kernel())


@pytest.mark.parametrize("check", CHECKS)
def test_an_unresponsive_kernel_is_killed_and_restarted_where_the_file_says_so(check: Check) -> None:
    story = running(**rule(check, action="restart"))

    assert [] == miss(story, check, 2)
    assert [SignalGroup("a", 1, SIGKILL)] == miss(story, check)
    assert ["kernel.unresponsive", "kernel.stopping"] == story.last_events
    assert [Spawn] == [type(action) for action in story.exited(KILLED)]
    assert "unresponsive" == story.said("kernel.died").fields["cause"]
    assert "SIGKILL" == story.said("kernel.died").fields["signal"]


@pytest.mark.parametrize("restart", ["on-failure", "never"])
@pytest.mark.parametrize("check", CHECKS)
def test_a_check_that_is_to_restart_the_kernel_restarts_it_whatever_is_to_follow_a_death(
    check: Check, restart: str
) -> None:
    story = running(restart=restart, **rule(check, action="restart"))
    miss(story, check, 3)

    assert [Spawn] == [type(action) for action in story.exited(KILLED)]
    assert "unresponsive" == story.said("kernel.died").fields["cause"]


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_that_is_off_counts_nothing(check: Check) -> None:
    story = running(**rule(check, misses=1, action="off"))
    before = story.state

    assert [] == miss(story, check, 10)
    assert before == story.state
    assert is_responsive(story.kernel())


def test_an_answer_after_the_limit_is_a_recovery_and_told_once() -> None:
    story = running(**rule(Check.PROBE))
    miss(story, Check.PROBE, 4)
    story.tell(Answered("a", 1, Check.PROBE))
    assert ["kernel.responsive"] == story.last_events
    assert {"check": "probe"} == story.said("kernel.responsive").fields

    story.tell(Answered("a", 1, Check.PROBE))
    assert [] == story.last_events
    miss(story, Check.PROBE, 3)
    assert 2 == story.events.count("kernel.unresponsive")


def test_each_check_has_a_count_of_its_own() -> None:
    story = running(heartbeat=HeartbeatConfig(misses=2), probe=ProbeConfig(misses=2))
    miss(story, Check.HEARTBEAT)
    miss(story, Check.PROBE)
    assert is_responsive(story.kernel())

    miss(story, Check.PROBE)
    story.tell(Answered("a", 1, Check.HEARTBEAT))
    assert "kernel.responsive" not in story.events
    assert not is_responsive(story.kernel())
    story.tell(Answered("a", 1, Check.PROBE))
    assert is_responsive(story.kernel())


def test_only_a_running_kernel_is_responsive() -> None:
    story = Story()
    story.load(config())
    assert not is_responsive(story.kernel())

    story.runs()
    assert is_responsive(story.kernel())


# Edits of a check while its misses are counted


def test_a_lowered_limit_that_is_passed_already_is_told_by_the_edit() -> None:
    story = running(**rule(Check.PROBE, misses=6))
    miss(story, Check.PROBE, 4)
    story.tell(edited(Check.PROBE, misses=2))

    assert ["kernel.unresponsive"] == story.last_events
    assert {"check": "probe", "misses": 4, "reason": "edited"} == story.said("kernel.unresponsive").fields
    assert not is_responsive(story.kernel())
    story.tell(Answered("a", 1, Check.PROBE))
    assert ["kernel.responsive"] == story.last_events


def test_a_passed_limit_is_acted_upon_at_the_next_miss_and_not_by_the_edit() -> None:
    story = running(**rule(Check.PROBE, misses=6))
    miss(story, Check.PROBE, 4)
    new = edited(Check.PROBE, misses=2, action="restart")

    assert [Apply("a", new.kernels["a"])] == story.tell(new)
    assert "Running" == story.phase
    assert [SignalGroup("a", 1, SIGKILL)] == miss(story, Check.PROBE)
    assert 1 == story.events.count("kernel.unresponsive")


def test_the_edit_to_restart_acts_on_a_kernel_that_was_told_unresponsive() -> None:
    story = running(**rule(Check.HEARTBEAT))
    miss(story, Check.HEARTBEAT, 9)
    story.tell(edited(Check.HEARTBEAT, action="restart"))

    assert [SignalGroup("a", 1, SIGKILL)] == miss(story, Check.HEARTBEAT)


def test_a_raised_limit_takes_back_what_was_told() -> None:
    story = running(**rule(Check.PROBE, misses=2))
    miss(story, Check.PROBE, 3)
    story.tell(edited(Check.PROBE, misses=5))

    assert ["kernel.responsive"] == story.last_events
    assert {"check": "probe", "reason": "edited"} == story.said("kernel.responsive").fields
    miss(story, Check.PROBE, 2)
    assert ["kernel.unresponsive"] == story.last_events


def test_a_check_that_is_switched_off_says_nothing_more() -> None:
    story = running(**rule(Check.PROBE, misses=2))
    miss(story, Check.PROBE, 3)
    story.tell(edited(Check.PROBE, misses=2, action="off"))
    assert ["kernel.responsive"] == story.last_events
    assert is_responsive(story.kernel())

    story.tell(edited(Check.PROBE, misses=2))
    assert is_responsive(story.kernel())
    miss(story, Check.PROBE)
    assert [] == story.last_events


def test_an_edit_of_other_keys_leaves_the_counts() -> None:
    story = running(**rule(Check.PROBE))
    miss(story, Check.PROBE, 2)
    story.load(config(**rule(Check.PROBE), max_restarts=9))
    assert [] == story.last_events

    miss(story, Check.PROBE)
    assert ["kernel.unresponsive"] == story.last_events
