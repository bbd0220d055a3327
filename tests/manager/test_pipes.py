"""Pipes that are asked for are emptied, whether anybody reads them or not."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from supervisor.manager import pipes
from tests.kernels.using import mini
from tests.manager.managing import Make, children, descriptors
from tests.waiting import wait_for


def writing(count: int, stream: str = "stdout") -> list[str]:
    """A command that writes so many lines of 100 bytes, tells that in a file, and stays."""
    program = (
        f"import sys, time; [print('x' * 99, file=sys.{stream}) for _ in range({count})]\n"
        f"print('last', file=sys.{stream}, flush=True)\n"
        "open(sys.argv[1] + '.done', 'w').close(); time.sleep(600)"
    )
    return [sys.executable, "-c", program, "{connection_file}"]


def test_what_the_kernel_writes_is_read_from_its_process(make: Make) -> None:
    manager = make(kernel_cmd=mini("--say", "hello"))
    manager.start_kernel(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    kernel = manager.kernel
    assert kernel is not None
    assert (manager.pid, None, None) == (kernel.pid, kernel.poll(), kernel.returncode)
    assert kernel.stdout is not None
    assert kernel.stderr is not None
    assert b"hello\n" == kernel.stderr.readline()

    manager.restart_kernel(now=True)

    # Each run has a pipe of its own; that of the one before has come to its end.
    assert (b"", b"") == (kernel.stderr.read(), kernel.stdout.read())
    assert -9 == kernel.wait(30)
    assert kernel is not manager.kernel
    assert manager.kernel is not None
    assert manager.kernel.stderr is not None
    assert b"hello\n" == manager.kernel.stderr.readline()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_pipe_that_nobody_reads_blocks_nobody_and_keeps_the_end(make: Make, stream: str) -> None:
    from pathlib import Path

    lines = 3 * pipes.MAX_UNREAD // 100
    manager = make(kernel_cmd=writing(lines, stream))
    manager.start_kernel(**{stream: subprocess.PIPE}, text=True)
    wait_for(Path(manager.connection_file + ".done").exists)
    kernel = manager.kernel
    assert kernel is not None

    manager.shutdown_kernel(now=True)

    *kept, last = getattr(kernel, stream).read().splitlines()
    assert "last" == last
    assert pipes.MAX_UNREAD // 100 - 2 <= len(kept) <= pipes.MAX_UNREAD // 100 + 1
    assert manager.last_exit is not None


def test_the_last_words_of_a_death_are_told_as_without_a_pipe(make: Make) -> None:
    said = [
        sys.executable,
        "-c",
        "import sys; print('why', file=sys.stderr); sys.exit(3)",
        "{connection_file}",
    ]
    manager = make(kernel_cmd=said, autorestart=False)
    dead = threading.Event()
    manager.add_restart_callback(dead.set, "dead")

    manager.start_kernel(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    assert dead.wait(30)
    assert manager.last_exit is not None
    assert (3, ("why",)) == (manager.last_exit.code, manager.last_exit.output_tail)


def test_a_launch_that_fails_leaves_no_pipe(make: Make) -> None:
    before = descriptors()
    manager = make(kernel_cmd=["/no/such/program"])

    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            manager.start_kernel(stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    assert before == descriptors()


def no_thread(thread: threading.Thread) -> None:
    """As ``start`` of a pipe's thread where no more are to be had."""
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("is_full", [False, True])
def test_pipes_that_cannot_be_emptied_leave_no_process_and_no_pipe(
    make: Make, monkeypatch: pytest.MonkeyPatch, *, is_full: bool
) -> None:
    manager = make(kernel_cmd=writing(1))
    before = descriptors()
    start = threading.Thread.start
    if is_full:
        monkeypatch.setattr(
            threading.Thread, "start", lambda self: (no_thread if self.name == "pipe" else start)(self)
        )

    with pytest.raises(RuntimeError if is_full else LookupError):
        manager.start_kernel(stdout=subprocess.PIPE, **({} if is_full else {"encoding": "no-such"}))

    commands = [child.cmdline() for child in children()]
    assert [] == [command for command in commands if manager.connection_file in command]
    wait_for(lambda: before == descriptors())
