"""How many files we may have open, how many are left, and what our children may."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from supervisor.process.descriptors import left, limit
from tests.cli.tools import ROOT
from tests.waiting import DEADLINE

# In a process of its own: its limit is raised.  The child tells its limit once it has been given it.
RAISED = """
import resource, subprocess, sys
from supervisor.process.descriptors import give_back_limit, limit, raise_limit
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
raise_limit()
told = "import resource, sys; sys.stdin.read(); print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
pipe = subprocess.PIPE
child = subprocess.Popen([sys.executable, "-c", told], stdin=pipe, stdout=pipe, text=True)
give_back_limit(child)
assert limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[1] == hard
assert child.communicate()[0] == f"100 {hard}\\n"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="children could not be given back what we had")
def test_our_limit_is_raised_and_a_child_has_what_we_were_started_with() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RAISED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)


def test_each_that_is_opened_is_one_less() -> None:
    before = left()
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(7)]
    try:
        assert before - 7 == left() <= limit()
    finally:
        for descriptor in taken:
            os.close(descriptor)
