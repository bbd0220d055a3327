"""The verb ``health``: what is not well, and the exit code for those who only want that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.health import wrong_with
from supervisor.cli.program import main
from tests.control.fake_steering import FakeSteering

DEATH = {"at": "2025-01-31T12:00:00Z", "cause": "oom", "signal": "SIGKILL"}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"phase": "running", "health": "ok"}, ""),
        ({"phase": "running", "health": "unresponsive"}, "unresponsive (pid 42)"),
        ({"phase": "starting", "health": None}, "starting"),
        ({"phase": "backoff", "health": None, "last_death": DEATH}, "backoff, after out of memory"),
        ({"phase": "failed", "want": "down", "reason": "no such spec"}, "failed: no such spec"),
        ({"phase": "stopped", "want": "down"}, ""),
        ({"phase": "stopping", "want": "down"}, ""),
        ({"phase": "stopping", "want": "up"}, "stopping"),
    ],
)
def test_what_is_wrong_with_a_kernel(fields: dict[str, Any], wrong: str) -> None:
    assert wrong == wrong_with({"name": "a", "want": "up", "pid": 42, **fields})


@pytest.mark.usefixtures("daemon")
def test_the_exit_code_tells_whether_all_is_well(
    steering: FakeSteering, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--socket", str(tmp_path / "s"))

    assert 0 == main(["health", *where])
    assert "" == capsys.readouterr().out
    steering.views["robot"] |= {"phase": "failed", "reason": "gone\x1b[2J"}
    assert 1 == main(["health", *where])
    assert "robot: failed: gone\\x1b[2J\n" == capsys.readouterr().out
    assert 0 == main(["health", "analysis", *where])
    assert 1 == main(["health", "nobody", *where])
    capsys.readouterr()
    assert 1 == main(["health", "--json", *where])
    assert {"ok": False, "wrong": {"robot": "failed: gone\x1b[2J"}} == json.loads(capsys.readouterr().out)


def test_no_daemon_is_not_well(tmp_path: Path) -> None:
    assert 3 == main(["health", "--socket", str(tmp_path / "none")])
