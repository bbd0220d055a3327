"""What a child of ours inherits of signals, through every launch; and what stays ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.kernel.launch import spawn
from supervisor.process.dispositions import default_signals
from tests.kernel.test_launch import MARK, command, finish


@pytest.fixture
def deaf() -> Iterator[None]:
    """SIGINT and SIGQUIT ignored, as in a background job of a script, and SIGUSR1 blocked."""
    old = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGINT, signal.SIGQUIT)}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for signum, handler in old.items():
        signal.signal(signum, handler)


def masks(pid: int | str) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    told = {line[:6]: int(line[7:], 16) for line in lines if line.startswith(("SigBlk", "SigIgn"))}
    # Signals 32 and 33 are the C library's own (nptl(7)): whoever was begun by its posix_spawn, as by
    # make, ignores them, and they can be set by nobody else.
    return {which: mask & ~(0b11 << 31) for which, mask in told.items()}


def spawn_masks(tmp_path: Path) -> dict[str, int]:
    process = spawn(command("sleep", "600"), tmp_path, None, MARK)
    try:
        return masks(process.pid)
    finally:
        process.kill()
        finish(process)


@pytest.mark.usefixtures("deaf")
def test_the_kernel_ignores_and_blocks_no_signal_even_if_we_do(tmp_path: Path) -> None:
    ours = masks("thread-self")
    plain = subprocess.Popen(["sleep", "600"])
    try:
        inherited = masks(plain.pid)
    finally:
        plain.kill()
        finish(plain)

    assert 0 != inherited["SigIgn"] != 0 != inherited["SigBlk"]
    assert {"SigBlk": 0, "SigIgn": 0} == spawn_masks(tmp_path)
    assert ours == masks("thread-self")


@pytest.mark.usefixtures("deaf")
def test_that_holds_for_many_threads_at_once_and_leaves_us_as_we_were(tmp_path: Path) -> None:
    ours = masks("thread-self")
    found: list[dict[str, int]] = []

    def run() -> None:
        for _ in range(5):
            found.append(spawn_masks(tmp_path))  # noqa: PERF401

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        os.kill(os.getpid(), signal.SIGINT)  # Ignored by us, now as ever.
    for thread in threads:
        thread.join()

    assert 20 * [{"SigBlk": 0, "SigIgn": 0}] == found
    assert ours == masks("thread-self")


@pytest.mark.usefixtures("deaf")
def test_a_python_kernel_started_by_a_deaf_supervisor_can_be_interrupted(tmp_path: Path) -> None:
    code = """
import time
try:
    print('up', flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print('interrupted')
"""
    process = spawn(command(sys.executable, "-c", code), tmp_path, None, MARK, {"stdout": subprocess.PIPE})
    assert process.stdout is not None

    try:
        assert b"up\n" == process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)

        assert b"interrupted\n" == process.stdout.readline()
        assert 0 == finish(process)
    finally:
        process.kill()
        process.stdout.close()


def test_a_handler_that_somebody_set_meanwhile_stays() -> None:
    old = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    heard: list[int] = []
    try:
        with default_signals():
            signal.signal(signal.SIGUSR2, lambda signum, _: heard.append(signum))
        os.kill(os.getpid(), signal.SIGUSR2)

        assert [signal.SIGUSR2] == heard
    finally:
        signal.signal(signal.SIGUSR2, old)
