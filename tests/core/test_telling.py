"""What the world is told: names, levels and fields of the lifecycle events (DESIGN: Events)."""

from __future__ import annotations

import pytest

from supervisor.core.actions import Publish
from supervisor.core.events import (
    Answered,
    Escaped,
    Event,
    Interrupt,
    Missed,
    Ready,
    Restart,
    SendSignal,
    Stop,
)
from supervisor.core.model import Cause, Check, Exit
from supervisor.core.telling import LEVELS
from supervisor.settings.config import HeartbeatConfig
from tests.core.story import CLEAN, KILLED, NOT_FOUND, Story, config, running

TAIL = ("Traceback", "Boom")


def test_a_start_is_told_when_its_process_exists_and_again_when_it_is_ready() -> None:
    story = Story()
    story.load(config())
    assert [] == story.published
    story.spawned()
    assert [Publish("a", "kernel.starting", "info", 1, 1001, {})] == story.last_published

    story.now += 0.41234
    story.tell(Ready("a", 1, connect="hb"))
    assert [
        Publish("a", "kernel.ready", "info", 1, 1001, {"took": 0.412, "connect": "hb"})
    ] == story.last_published


@pytest.mark.parametrize(
    ("exit", "fields"),
    [
        (Exit(Cause.CRASHED, code=7), {"cause": "crashed", "exit_code": 7}),
        (Exit(Cause.OOM, signal="SIGKILL"), {"cause": "oom", "signal": "SIGKILL"}),
        (Exit(Cause.EXITED, code=0), {"cause": "exited", "exit_code": 0}),
        (Exit(Cause.UNKNOWN), {"cause": "unknown"}),
        (
            Exit(Cause.PORT_TAKEN, code=1, detail="port 5000"),
            {"cause": "port-taken", "exit_code": 1, "detail": "port 5000"},
        ),
    ],
)
def test_a_death_is_told_with_all_that_is_known_of_it(exit: Exit, fields: dict[str, object]) -> None:
    story = running()
    story.now += 2.5
    story.exited(Exit(exit.cause, exit.code, exit.signal, TAIL, exit.detail))

    expected = {"uptime": 2.5, **fields, "output_tail": list(TAIL)}
    assert Publish("a", "kernel.died", "warning", 1, 1001, expected) == story.last_published[0]


def test_a_restart_after_a_death_tells_its_attempt_and_its_delay() -> None:
    story = running()
    story.exited()
    assert {"attempt": 1, "delay": 0.0} == story.said("kernel.restarting").fields

    story.runs()
    story.exited()
    assert {"attempt": 2, "delay": 0.5} == story.said("kernel.restarting").fields
    assert "info" == story.said("kernel.restarting").level


def test_a_restart_by_order_tells_so() -> None:
    story = running()
    story.tell(Restart("a"))
    assert [Publish("a", "kernel.stopping", "info", 1, 1001, {"reason": "ordered"})] == story.last_published

    story.exited(CLEAN)
    told = {"attempt": 0, "delay": 0.0, "reason": "ordered", "cause": "exited", "exit_code": 0}
    assert [Publish("a", "kernel.restarting", "info", 1, 1001, told)] == story.last_published


def test_a_restart_by_an_edit_names_the_keys() -> None:
    story = running()
    story.load(config(cwd="/elsewhere", env={"SECRET": "hush"}, max_restarts=9))
    story.exited(CLEAN)

    told = {"attempt": 0, "delay": 0.0, "reason": "edited", "keys": ["cwd", "env"]}
    assert told | {"cause": "exited", "exit_code": 0} == story.said("kernel.restarting").fields
    assert "hush" not in repr(story.published)


def test_a_stop_tells_its_reason_and_how_the_kernel_ended() -> None:
    story = running()
    story.tell(Stop("a"))
    story.exited(KILLED)

    told = {"reason": "ordered", "cause": "killed", "signal": "SIGKILL"}
    assert [Publish("a", "kernel.stopped", "info", 1, 1001, told)] == story.last_published


def test_a_failure_needs_a_person() -> None:
    story = Story()
    story.load(config())
    story.spawn_failed(NOT_FOUND)

    told = {"reason": "no such file: /nowhere/python"}
    assert Publish("a", "kernel.failed", "error", 1, None, told) == story.last_published[-1]


def test_an_unresponsive_kernel_and_its_recovery() -> None:
    story = running(heartbeat=HeartbeatConfig(misses=1))
    story.tell(Missed("a", 1, Check.HEARTBEAT))
    told = {"check": "heartbeat", "misses": 1}
    assert [Publish("a", "kernel.unresponsive", "warning", 1, 1001, told)] == story.last_published

    story.tell(Answered("a", 1, Check.HEARTBEAT))
    told = {"check": "heartbeat"}
    assert [Publish("a", "kernel.responsive", "info", 1, 1001, told)] == story.last_published


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (Interrupt("a"), Publish("a", "kernel.interrupted", "info", 1, 1001, {})),
        (SendSignal("a", 10), Publish("a", "kernel.signalled", "info", 1, 1001, {"signum": 10})),
    ],
)
def test_what_is_done_to_a_kernel_on_order(event: Event, told: Publish) -> None:
    story = running()
    story.tell(event)

    assert [told] == story.last_published


def test_a_removal() -> None:
    story = Story()
    story.load(config(autostart=False))
    story.load()

    assert [Publish("a", "kernel.removed", "info", 0, None, {})] == story.last_published


def test_children_that_escaped_are_told_of_the_run_that_left_them() -> None:
    story = running()
    story.exited()
    story.runs()
    before = story.state

    assert [] == story.tell(Escaped("a", 1, (41, 42)))
    assert [Publish("a", "kernel.escaped", "warning", 1, None, {"pids": [41, 42]})] == story.last_published
    assert before == story.state


def test_errors_are_for_people_and_warnings_mend_themselves() -> None:
    assert ["kernel.waiting", "kernel.failed"] == [
        event for event, level in LEVELS.items() if level == "error"
    ]
    assert {"info", "warning", "error"} == set(LEVELS.values())
    named = {"starting", "ready", "died", "restarting", "stopping", "stopped", "failed", "unresponsive"}
    named |= {"responsive", "adopted", "interrupted", "removed"}
    assert {f"kernel.{event}" for event in named} <= set(LEVELS)
