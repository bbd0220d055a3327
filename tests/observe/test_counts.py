"""What is counted of what happens."""

from __future__ import annotations

from typing import Any

from supervisor.observe.counts import READY_BOUNDS, Counts


def counted(*events: dict[str, Any]) -> dict[str, Any]:
    counts = Counts()
    for event in events:
        counts(event)
    return counts.fields()


def of(event: str, kernel: str = "a", **fields: Any) -> dict[str, Any]:
    return {"event": event, "kernel": kernel, **fields}


def test_deaths_and_the_restarts_after_them_are_counted_by_cause() -> None:
    found = counted(
        of("kernel.died", cause="oom"),
        of("kernel.restarting"),
        of("kernel.died", cause="killed"),
        of("kernel.restarting"),
        of("kernel.restarting", reason="edited"),
        of("kernel.died", kernel="b", cause="oom"),
    )

    assert {"a": {"oom": 1, "killed": 1}, "b": {"oom": 1}} == found["deaths"]
    assert {"a": {"oom": 1, "killed": 1, "edited": 1}} == found["restarts"]


def test_a_restart_after_a_death_that_nobody_saw_is_of_unknown_cause() -> None:
    assert {"a": {"unknown": 1}} == counted(of("kernel.restarting"))["restarts"]


def test_the_time_to_readiness_falls_into_its_bucket() -> None:
    found = counted(of("kernel.ready", took=0.25), of("kernel.ready", took=99.0), of("kernel.ready"))

    assert len(READY_BOUNDS) + 1 == len(found["ready"]["a"]["buckets"])
    assert [0, 1, 0, 0, 0, 0, 0, 0, 0, 1] == found["ready"]["a"]["buckets"]
    assert 99.25 == found["ready"]["a"]["seconds"]


def test_edits_and_unanswered_checks_are_counted() -> None:
    found = counted(
        {"event": "config.loaded"}, {"event": "config.rejected"}, of("kernel.unresponsive", check="probe")
    )

    assert {"accepted": 1, "rejected": 1} == found["loads"]
    assert {"a": {"probe": 1}} == found["unresponsive"]


def test_a_removed_kernel_is_forgotten() -> None:
    found = counted(of("kernel.died", cause="oom"), of("kernel.ready", took=1.0), of("kernel.removed"))

    assert ({}, {}) == (found["deaths"], found["ready"])
