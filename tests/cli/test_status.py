"""The verb status: tables, last words, what is wrong, again and again."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from supervisor.version import __version__
from tests.cli.tools import Cli, begin, read_until
from tests.control.fake_steering import FakeDaemon, FakeSteering

DEATH = {
    "at": "2025-01-31T12:00:00Z",
    "generation": 1,
    "pid": 7,
    "cause": "killed",
    "exit_code": None,
    "signal": "SIGKILL",
    "uptime": 44.0,
    "output_tail": ["last words"],
    "detail": "",
}


def test_status_is_a_plain_table_in_a_pipe(cli: Cli, steering: FakeSteering) -> None:
    steering.views["robot"] |= {"phase": "failed", "pid": None, "reason": "5 deaths", "last_death": DEATH}

    code, out, err = cli("status")

    assert (0, "") == (code, err)
    assert "\x1b" not in out
    lines = out.splitlines()
    titles = ["NAME", "PHASE", "PID", "UPTIME", "RESTARTS", "LAST DEATH", "HEALTH", "CONNECTION FILE"]
    assert titles == re.split("  +", lines[1])
    assert lines[2].split()[:6] == ["analysis", "running", "4242", "3", "h", "0"]
    assert "SIGKILL" in lines[3]
    assert re.search(r" d (\d+ h )?ago", lines[3])
    assert "robot: failed: 5 deaths: when it is mended: kernel-supervisor reset robot" in lines


def test_status_of_a_named_kernel_tells_its_last_words(cli: Cli, steering: FakeSteering) -> None:
    steering.views["robot"] |= {"last_death": DEATH | {"output_tail": ["esc \x1b[2J"]}}

    _, out, _ = cli("status", "rob*")

    assert "analysis" not in out.replace(str(steering.tmp), "")
    assert "  | esc \\x1b[2J" in out.splitlines()


def test_status_for_machines_is_what_the_daemon_said(cli: Cli, steering: FakeSteering) -> None:
    found = json.loads(cli("status", "stats", "--json").out)

    assert ["stats"] == [view["name"] for view in found["kernels"]]
    assert "instance-1" == found["instance"]


def test_status_tells_what_the_daemon_can_do_with_cgroups_unless_it_is_all(
    cli: Cli, steering: FakeSteering
) -> None:
    assert "cgroups" not in cli("status").out
    steering.cgroups_advice = "limits need systemd 254"

    assert "cgroups: tracking: limits need systemd 254" in cli("status").out.splitlines()


def test_status_tells_what_is_wrong_with_the_daemon(cli: Cli, steering: FakeSteering) -> None:
    steering.mistakes = ["kernels.toml: kernels.a.x: no such key"]
    steering.degraded = ["events.jsonl cannot be written"]

    out = cli("status").out

    assert "has mistakes; the settings before it are in force:" in out
    assert "  kernels.toml: kernels.a.x: no such key\n" in out
    assert "degraded: events.jsonl cannot be written\n" in out


def test_watch_shows_it_again_until_ctrl_c(
    daemon: FakeDaemon, steering: FakeSteering, tmp_path: Path
) -> None:
    process = begin(tmp_path, "status", "--watch", "--interval", "0.05", "--socket", str(daemon.path))
    read_until(process.stdout, "stats")
    daemon.call(steering.views["stats"].update, {"phase": "backoff"})
    read_until(process.stdout, "backoff")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert 0 == process.returncode


def test_status_tells_of_a_daemon_that_is_older_than_what_is_installed(
    cli: Cli, steering: FakeSteering
) -> None:
    told = f"daemon 0.0.9, installed {__version__}: restart the service, the kernels go on"

    assert "installed" not in cli("status").out
    steering.version = "0.0.9"
    assert told in cli("status").out.splitlines()
