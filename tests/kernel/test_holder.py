"""Who has a port that a kernel needs is named, as far as the system tells."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.kernel.holder import holder
from supervisor.records.record import MARK_VARIABLE, mark

LISTEN = (
    "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True);input()"
)


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_child_that_left_the_kernel_is_told_from_another_program(tmp_path: Path, *, is_ours: bool) -> None:
    the_mark = mark(tmp_path, "a", 3)
    env = {**os.environ, MARK_VARIABLE: the_mark if is_ours else mark(tmp_path, "b", 3)}
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        told = holder(int(process.stdout.readline()), mark(tmp_path, "a", 0))
        process.kill()

    who = f": pid {process.pid} ({sys.executable} -c import socket"
    assert told.startswith(who)
    assert told.endswith(
        f", a child of this kernel that has left it: end it (kill {process.pid})"
        if is_ours
        else ": end it, or give the kernel another port"
    )


def test_who_serves_a_socket_is_told_and_nobody_is_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "s-1")
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(path)
        served.listen()

        assert f": pid {os.getpid()} (" in holder(path, "x/a/0")
    assert "" == holder(1, "x/a/0")
