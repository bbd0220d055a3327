"""What a supervised ipykernel does between its initialisation and its first request."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.warm.kept import PATIENCE, How, Kept


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
