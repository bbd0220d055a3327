"""What a zygote forks, and nobody wants any more."""

from __future__ import annotations

import os
import resource
import select
import signal
from pathlib import Path

import pytest

from tests.warm.kept import PATIENCE, Kept


def test_a_spare_whose_supervisor_goes_while_it_boots_ends(tmp_path: Path) -> None:
    """Its first word has nobody to hear it."""
    kept = Kept(tmp_path, how="standby")
    try:
        kept.start()
        spare = kept.fork_spare()
        os.kill(spare.pid, signal.SIGSTOP)
        pidfd = os.dup(spare.pidfd)
        spare.close()
        os.kill(spare.pid, signal.SIGCONT)
        assert select.select([pidfd], [], [], PATIENCE)[0]
        os.close(pidfd)
    finally:
        kept.close()


def test_a_zygote_is_heard_on_any_descriptor(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In a daemon of some two hundred kernels its socket has a number that ``select`` does not know."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("the system allows fewer than 1,200 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    request.addfinalizer(lambda: [os.close(fd) for fd in taken])
    kept = Kept(tmp_path, how="fork")
    request.addfinalizer(kept.close)
    spare = kept.fork_spare()
    assert spare.cord.fileno() > 1023
    spare.close()
