"""The metrics: names, types and labels as Prometheus wants them."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest

from supervisor.observe.counts import Counts
from supervisor.page.metrics import exposition

STATUS = {
    "version": "1.2.3",
    "config": {"mistakes": ["one"]},
    "degraded": ["two", "three"],
    "kernels": [
        {"name": "a", "phase": "running", "want": "up", "health": "ok", "uptime": 3.5},
        {"name": 'b"\n', "phase": "failed", "want": "up", "health": None, "uptime": None},
    ],
}
USAGE = {"a": {"memory": 7, "cpu_seconds": 1.5, "threads": 4, "descriptors": 20, "children": 1}}


def counts() -> dict[str, Any]:
    made = Counts()
    made({"event": "kernel.died", "kernel": "a", "cause": "oom"})
    made({"event": "kernel.restarting", "kernel": "a"})
    made({"event": "kernel.ready", "kernel": "a", "took": 0.3})
    made({"event": "config.loaded"})
    return {**made.fields(), "daemon": {"lag": 0.001, "memory": 4e7, "descriptors": 40}}


def test_what_is_so_is_told() -> None:
    lines = exposition(STATUS, USAGE, counts()).splitlines()

    assert {
        'kernel_supervisor_build_info{version="1.2.3"} 1.0',
        "kernel_supervisor_config_mistakes 1.0",
        "kernel_supervisor_degraded 2.0",
        'kernel_supervisor_config_loads_total{result="accepted"} 1.0',
        'kernel_supervisor_kernel_phase{kernel="a",phase="running"} 1.0',
        'kernel_supervisor_kernel_phase{kernel="a",phase="failed"} 0.0',
        'kernel_supervisor_kernel_responsive{kernel="b\\"\\n"} 0.0',
        'kernel_supervisor_kernel_uptime_seconds{kernel="a"} 3.5',
        'kernel_supervisor_kernel_deaths_total{cause="oom",kernel="a"} 1.0',
        'kernel_supervisor_kernel_restarts_total{cause="oom",kernel="a"} 1.0',
        'kernel_supervisor_kernel_ready_seconds_bucket{kernel="a",le="0.25"} 0.0',
        'kernel_supervisor_kernel_ready_seconds_bucket{kernel="a",le="+Inf"} 1.0',
        'kernel_supervisor_kernel_ready_seconds_sum{kernel="a"} 0.3',
        'kernel_supervisor_kernel_cpu_seconds_total{kernel="a"} 1.5',
        'kernel_supervisor_kernel_memory_bytes{kernel="a"} 7.0',
        "kernel_supervisor_loop_lag_seconds 0.001",
    } <= {re.sub(r"\{(kernel)=(\"[^\"]*\"),(cause)=(\"[^\"]*\")\}", r"{\3=\4,\1=\2}", line) for line in lines}


def test_a_daemon_of_which_nothing_is_known_gives_no_numbers_that_are_made_up() -> None:
    text = exposition({"version": "1", "kernels": []}, {}, {})

    assert "loop_lag" not in text
    assert "kernel_memory_bytes{" not in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_promtool_finds_nothing_to_mend() -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposition(STATUS, USAGE, counts()),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (0, "") == (checked.returncode, checked.stderr)
