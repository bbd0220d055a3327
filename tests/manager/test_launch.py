"""What a manager launches: environment, arguments, streams; what of it is remembered, and what is not."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.manager import KernelManager
from supervisor.manager.own import Own
from tests.kernels.using import MINI, mini
from tests.manager.managing import Make, die, environment, ready
from tests.waiting import wait_for


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a kernelspec."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "data"))

    def put(name: str, argv: list[str], **content: Any) -> None:
        directory = tmp_path / "data" / "kernels" / name
        directory.mkdir(parents=True)
        (directory / "kernel.json").write_text(json.dumps({"argv": argv, **content}))

    return put


def arguments(manager: KernelManager) -> list[str]:
    file = Path(f"/proc/{manager.pid}/cmdline")
    wait_for(lambda: MINI[1] in file.read_text())
    return file.read_text().split("\0")[:-1]


# The environment


def test_the_path_of_the_kernelspec_wins_over_that_of_the_given_environment(
    make: Make, install: Callable[..., None], tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        directory.mkdir()
        (directory / "my-python").symlink_to(sys.executable)
    (here / "my-python").unlink()
    install("mine", ["my-python", *MINI[1:]], env={"PATH": f"{there}:${{PATH}}"})
    manager = make(kernel_cmd=(), kernel_name="mine")

    manager.start_kernel(env={**os.environ, "PATH": f"{here}:/bin"})

    assert f"{there}:{here}:/bin" == environment(manager)["PATH"]


def test_variables_of_the_kernelspec_are_filled_in_from_the_given_environment(
    make: Make, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLOUR", "ours")
    install("mine", MINI, env={"TINT": "light ${COLOUR}", "COLOUR_2": "${NO_SUCH}", "SHAPE": "round"})
    manager = make(kernel_cmd=(), kernel_name="mine")

    manager.start_kernel(env={**os.environ, "COLOUR": "red", "SHAPE": "square"})

    found = environment(manager)
    assert ("light red", "${NO_SUCH}", "round") == (found["TINT"], found["COLOUR_2"], found["SHAPE"])
    manager.restart_kernel(now=True, env=None)
    assert "light ours" == environment(manager)["TINT"]


def test_what_is_about_us_alone_is_passed_on_if_it_was_set_on_purpose(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("JPY_SESSION_NAME", "ours.ipynb")
    manager = make()

    given = {**os.environ, "JPY_SESSION_NAME": "theirs.ipynb", "LISTEN_FDNAMES": "door"}
    manager.start_kernel(env=given)
    # What we unset and they change later counts no more.
    monkeypatch.delenv("NOTIFY_SOCKET")
    given["COLOUR"] = "too late"
    for _ in range(2):
        found = environment(manager)
        assert ("theirs.ipynb", "door") == (found["JPY_SESSION_NAME"], found["LISTEN_FDNAMES"])
        assert "NOTIFY_SOCKET" not in found
        assert "COLOUR" not in found
        manager.restart_kernel(now=True)


# What is remembered


def test_what_a_start_names_is_what_a_restart_launches(make: Make, install: Callable[..., None]) -> None:
    install("mine", mini("--say", "spec"))
    named, commanded = make(kernel_cmd=()), make()

    named.start_kernel(kernel_name="mine")
    commanded.start_kernel(kernel_cmd=mini("--say", "command"))
    assert ("mine", mini("--say", "command")) == (named.kernel_name, commanded.kernel_cmd)
    for manager, word in ((named, "spec"), (commanded, "command")):
        manager.restart_kernel(now=True)
        assert word == arguments(manager)[-1]


def test_attributes_that_are_set_later_are_those_of_the_restart(make: Make) -> None:
    manager = make()
    manager.start_kernel()

    manager.kernel_cmd = mini("--say", "later")
    manager.restart_kernel(now=True)

    assert "later" == arguments(manager)[-1]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"nonsense": 1}, TypeError),
        ({"kernel_cmd": ["/no/such/program"]}, FileNotFoundError),
        ({"cwd": "/no/such/directory"}, FileNotFoundError),
    ],
)
def test_a_start_that_failed_leaves_no_argument_behind(
    make: Make, bad: dict[str, Any], error: type[Exception]
) -> None:
    manager = make()
    with pytest.raises(error):
        manager.start_kernel(**bad)
    with pytest.raises(RuntimeError, match="no kernel was started"):
        manager.restart_kernel()

    manager.start_kernel(extra_arguments=["--say", "good"])
    with pytest.raises(error):
        manager.restart_kernel(now=True, **bad)

    assert MINI == manager.kernel_cmd
    manager.restart_kernel()
    assert "good" == arguments(manager)[-1]


def test_each_start_begins_with_fresh_arguments(make: Make, tmp_path: Path) -> None:
    manager = make()
    manager.start_kernel(cwd=str(tmp_path), env={**os.environ, "COLOUR": "red"}, independent=True)
    assert tmp_path == Path(f"/proc/{manager.pid}/cwd").readlink()
    # A restart is no start, also after a shutdown.
    manager.shutdown_kernel(now=True)
    manager.restart_kernel()
    assert "red" == environment(manager)["COLOUR"]
    manager.shutdown_kernel(now=True, restart=True)

    manager.start_kernel()

    found = environment(manager)
    assert "COLOUR" not in found
    assert str(os.getpid()) == found["JPY_PARENT_PID"]
    assert Path.cwd() == Path(f"/proc/{manager.pid}/cwd").readlink()


# Streams


def test_a_kernel_comes_back_although_the_file_that_it_writes_to_was_closed(
    make: Make, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    manager = make()
    with out.open("wb") as file:
        ready(manager, stdout=file, stderr=subprocess.STDOUT, extra_arguments=["--say", "hello"])

    die(manager)
    manager.wait_ready()

    assert "hello\nhello\n" == out.read_text()


def test_a_descriptor_that_was_closed_and_used_again_is_not_written_to(make: Make, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    manager = make()
    ready(manager, stderr=fd, extra_arguments=["--say", "hello"])
    with other.open("wb") as file:
        os.dup2(file.fileno(), fd)

        die(manager)
        manager.wait_ready()

    os.close(fd)
    assert "hello\nhello\n" == out.read_text()
    assert b"" == other.read_bytes()


@pytest.mark.parametrize("number", [False, True])
def test_a_restart_after_one_that_failed_writes_where_the_kernel_wrote(
    make: Make, tmp_path: Path, number: bool
) -> None:
    manager = make()
    with (tmp_path / "out").open("wb") as file:
        ready(manager, stderr=file.fileno() if number else file, extra_arguments=["--say", "hello"])
    for wrong in ({"nonsense": 1}, {"kernel_cmd": ["/nonexistent", "{connection_file}"]}):
        with pytest.raises((TypeError, FileNotFoundError)):
            manager.restart_kernel(now=True, **wrong)

    manager.restart_kernel(now=True)
    manager.wait_ready()

    assert "hello\nhello\n" == (tmp_path / "out").read_text()


def test_a_reader_meets_the_end_once_the_kernel_is_shut_down(make: Make) -> None:
    reader, writer = os.pipe()
    manager = make()
    manager.start_kernel(stdout=writer, stderr=writer, extra_arguments=["--say", "hello"])
    os.close(writer)
    manager.wait_ready()
    assert b"hello\n" == os.read(reader, 100)

    manager.shutdown_kernel(now=True)

    assert [reader] == select.select([reader], [], [], 30)[0]
    assert b"" == os.read(reader, 100)
    os.close(reader)
    with pytest.raises(
        ValueError, match=r"stdout: descriptor \d+ was let go of at the shutdown: give it anew"
    ):
        manager.restart_kernel()
    manager.start_kernel()


def test_a_restart_after_a_shutdown_writes_to_the_same_file_if_that_is_open(
    make: Make, tmp_path: Path
) -> None:
    manager = make()
    with (tmp_path / "out").open("wb") as file:
        ready(manager, stderr=file, extra_arguments=["--say", "hello"])
        manager.shutdown_kernel(now=True)
        manager.restart_kernel()
        manager.wait_ready()
        manager.shutdown_kernel(now=True)

    assert "hello\nhello\n" == (tmp_path / "out").read_text()
    with pytest.raises(ValueError, match="stderr: is not an open file"):
        manager.restart_kernel()
    manager.restart_kernel(stderr=None)
    assert manager.is_alive() is True


def test_a_file_that_is_closed_already_is_refused(make: Make, tmp_path: Path) -> None:
    manager = make()
    with (tmp_path / "out").open("wb") as file:
        pass

    with pytest.raises(ValueError, match="stdout: is not an open file: give one, or DEVNULL"):
        manager.start_kernel(stdout=file)

    assert (False, False) == (manager.has_kernel, manager.is_alive())


def test_no_descriptor_of_a_stream_is_left(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"

    def open_on(path: Path) -> int:
        found = 0
        for fd in Path("/proc/self/fd").iterdir():
            try:
                found += fd.readlink() == path
            except OSError:
                continue  # the one that lists
        return found

    manager = KernelManager(kernel_cmd=MINI)
    with first.open("wb") as file, second.open("wb") as other:
        manager.start_kernel(stdout=file, stderr=file)
        manager.restart_kernel(now=True, stdout=other, stderr=other)
    assert (0, 2) == (open_on(first), open_on(second))
    manager.shutdown_kernel(now=True)
    assert 0 == open_on(second)

    with first.open("wb") as file:
        manager.start_kernel(stdout=file)
    pid, own = manager.pid, manager._carrier
    assert pid is not None
    assert isinstance(own, Own)
    assert 1 == open_on(first)
    del manager
    gc.collect()
    # Nobody holds the manager, and the kernel is supervised to its end: so long, and no longer.
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: own.kernel is not None and own.kernel.generation == 2)
    assert 1 == open_on(first)
    own.block(own.finish_shutdown(0.0))
    wait_for(lambda: 0 == open_on(first))
