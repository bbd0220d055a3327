"""A kernel as its operators read it, in each phase."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.model import (
    Backoff,
    Cause,
    Check,
    Death,
    Exit,
    Failed,
    Kernel,
    Phase,
    ProcessId,
    Queued,
    Reason,
    Running,
    Starting,
    Step,
    Stopped,
    Stopping,
    Want,
)
from supervisor.settings.config import HeartbeatConfig, KernelConfig, RecorderConfig
from supervisor.views import About, Clock, launch_label, view

CONFIG = KernelConfig(name="a", kernelspec="python3", heartbeat=HeartbeatConfig(misses=2))
PROCESS = ProcessId(42, 1, "boot")
# Ten seconds after the instant 100, it is a quarter past noon.
CLOCK = Clock(110.0, datetime(2025, 1, 2, 12, 15, tzinfo=UTC))
TEN_SECONDS_AGO = "2025-01-02T12:14:50.000Z"


def seen(phase: Phase, about: About = About("u-u-i-d"), **fields: Any) -> dict[str, Any]:  # noqa: B008
    kernel = Kernel(**{"name": "a", "declared": CONFIG, "want": Want.UP, "phase": phase, **fields})
    found = view(kernel, CLOCK, Path("/run/kernel-a.json"), Path("/state/a.log"), about)
    assert found == json.loads(json.dumps(found))
    return found


@pytest.mark.parametrize(
    ("phase", "name", "pid", "since"),
    [
        (Stopped(), "stopped", None, None),
        (Queued(100.0), "starting", None, None),
        (Starting(CONFIG, 100.0), "starting", None, None),
        (Starting(CONFIG, 100.0, PROCESS, 160.0), "starting", 42, TEN_SECONDS_AGO),
        (Running(CONFIG, PROCESS, 100.0), "running", 42, TEN_SECONDS_AGO),
        (
            Stopping(CONFIG, PROCESS, Step.ASK, 109.0, 119.0, Reason.ORDERED, 100.0),
            "stopping",
            42,
            TEN_SECONDS_AGO,
        ),
        (Backoff(112.0, 2.0, 3), "backoff", None, None),
        (Failed("given up"), "failed", None, None),
    ],
)
def test_the_phase_its_process_and_since_when(
    phase: Phase, name: str, pid: int | None, since: str | None
) -> None:
    found = seen(phase)

    assert (name, pid, since) == (found["phase"], found["pid"], found["since"])
    assert (10.0 if since else None) == found["uptime"]


def test_a_stop_before_there_is_a_process_has_no_uptime() -> None:
    found = seen(Stopping(CONFIG, None, Step.ASK, 109.0, 1e9, Reason.ORDERED, 100.0))

    assert (None, None, None) == (found["pid"], found["since"], found["uptime"])


def test_a_failed_kernel_tells_why_and_one_that_waits_until_when() -> None:
    assert "given up" == seen(Failed("given up"))["reason"]
    assert "2025-01-02T12:15:02.000Z" == seen(Backoff(112.0, 2.0, 3))["next_start_at"]
    assert ("", None) == (seen(Stopped())["reason"], seen(Stopped())["next_start_at"])


def test_health_is_of_running_kernels_only() -> None:
    assert "ok" == seen(Running(CONFIG, PROCESS, 0.0, {Check.HEARTBEAT: 1}))["health"]
    assert "unresponsive" == seen(Running(CONFIG, PROCESS, 0.0, {Check.HEARTBEAT: 2}))["health"]
    assert None is seen(Stopped())["health"]


def test_keys_that_wait_for_a_restart_are_named() -> None:
    edited = KernelConfig(name="a", kernelspec="ir", on_config_change="manual", stop_timeout=1.0)

    found = seen(Running(CONFIG, PROCESS, 0.0), declared=edited)

    assert ["kernelspec"] == found["pending"]
    assert "python3" == found["launch"]


def test_the_last_death_is_told_with_its_date() -> None:
    ended = Exit(Cause.CRASHED, None, "SIGSEGV", ("a", "b"), "detail")

    view = seen(Stopped(), deaths=(Death(2, 40, 90.0, 1.0, ended), Death(3, 41, 100.0, 1.23456, ended)))
    found = view["last_death"]

    assert [2, 3] == [death["generation"] for death in view["deaths"]]

    assert {
        "at": TEN_SECONDS_AGO,
        "generation": 3,
        "pid": 41,
        "cause": "crashed",
        "exit_code": None,
        "signal": "SIGSEGV",
        "uptime": 1.235,
        "output_tail": ["a", "b"],
        "detail": "detail",
    } == found


def test_what_is_launched_is_told_in_few_words() -> None:
    assert "python3" == launch_label(CONFIG)
    assert "x 'a b'" == launch_label(KernelConfig(name="a", argv=("x", "a b")))
    found = seen(Running(CONFIG, PROCESS, 0.0), declared=None, want=Want.DOWN)
    assert "python3" == found["launch"]


def test_what_jupyter_programs_need_is_told() -> None:
    chosen = KernelConfig(
        name="a",
        argv=("x",),
        display_name="Alpha",
        on_client_shutdown="stop",
        recorder=RecorderConfig(max_bytes=9),
        interrupt_mode="message",
    )
    plain = seen(Stopped(), About("u-u-i-d", "python"))
    told = seen(Running(CONFIG, PROCESS, 0.0), About("u-u-i-d", "R", "signal"), declared=chosen)
    keys = ("id", "language", "interrupt_mode", "display_name", "on_client_shutdown")

    assert ["u-u-i-d", "python", None, "a", "detach"] == [plain[key] for key in keys]
    assert {"max_bytes": 10_485_760, "max_age": 604_800.0} == plain["recorder"]
    assert ["u-u-i-d", "R", "message", "Alpha", "stop"] == [told[key] for key in keys]
    assert 9 == told["recorder"]["max_bytes"]
    assert "signal" == seen(Stopped(), About("u-u-i-d", "R", "signal"))["interrupt_mode"]


def test_no_environment_value_is_shown() -> None:
    secret = KernelConfig(name="a", kernelspec="python3", env={"TOKEN": "hush"})

    assert "hush" not in json.dumps(seen(Running(secret, PROCESS, 0.0), declared=secret))
