"""Processes that are favoured less, with all of their threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.process.priority import favour


@pytest.fixture
def threaded() -> Iterator[int]:
    code = "import threading; threading.Thread(target=input).start(); print(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_every_thread_is_favoured_less_and_what_is_not_named_stays(threaded: int) -> None:
    score = Path(f"/proc/{threaded}/oom_score_adj")
    before = score.read_text()

    assert "" == favour([threaded], 7, None)

    tasks = [int(task.name) for task in Path(f"/proc/{threaded}/task").iterdir()]
    assert (2, {7}) == (len(tasks), {os.getpriority(os.PRIO_PROCESS, task) for task in tasks})
    assert before == score.read_text()
    assert "" == favour([threaded], None, 600)
    assert "600" == score.read_text().strip()


def test_who_has_ended_counts_as_done_and_what_is_refused_is_told_once(
    threaded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "setpriority", refuse)

    told = favour([2**22 + 1, threaded, threaded], -5, None)

    assert "nice = -5 cannot be set: Permission denied" == told
