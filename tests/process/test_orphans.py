"""Ended children that nobody waits for are reaped, at the second look, and no others."""

from __future__ import annotations

import os
import subprocess

import pytest

from supervisor.process.identity import LINUX
from supervisor.process.orphans import reap_orphans
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(not LINUX, reason="only there a daemon may have pid 1")


def ended() -> subprocess.Popen[bytes]:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return child


def test_what_has_ended_is_reaped_at_the_second_look_unless_somebody_waits_for_it() -> None:
    ours, orphan = ended(), ended()

    seen = reap_orphans({ours.pid}, ())

    assert orphan.pid in seen
    assert ours.pid not in seen
    os.waitid(os.P_PID, orphan.pid, os.WEXITED | os.WNOWAIT)
    assert orphan.pid not in reap_orphans({ours.pid}, {orphan.pid})
    with pytest.raises(ChildProcessError):
        os.waitpid(orphan.pid, 0)
    assert 0 == ours.wait()
    orphan.poll()


def test_what_runs_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        wait_for(lambda: child.poll() is None)

        assert child.pid not in reap_orphans((), {child.pid})
        child.kill()
    assert -9 == child.returncode
