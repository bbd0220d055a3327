"""What a zygote forks, and nobody wants any more."""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from pathlib import Path

import pytest

from tests.warm.kept import PATIENCE, How, Kept


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


@pytest.mark.parametrize("how", ["prepared", "fork", "standby"])
def test_the_grace_counts_from_when_clients_can_connect(tmp_path: Path, how: How) -> None:
    """Not from when they are let in: start-up code may take long in between."""
    kept = Kept(tmp_path, how=how, startup="import time; begun = time.time()")
    try:
        kept.start()
        kept.park_if_wished()
        kept.kill()
        died = time.time()
        kept.start()
        client = kept.client()
        code = "from ipykernel.kernelapp import IPKernelApp; print(IPKernelApp.instance().door.bound, begun)"
        said: list[str] = []
        client.execute_interactive(
            code, timeout=PATIENCE, output_hook=lambda m: said.append(m["content"].get("text", ""))
        )
        bound, begun = map(float, "".join(said).split()[-2:])
        assert died <= bound
        assert (bound <= begun) is (how != "standby")
    finally:
        kept.close()
