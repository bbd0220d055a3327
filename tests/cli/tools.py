"""Runs the command line as its users do: as a process of its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

from tests.waiting import DEADLINE

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]


def environment(home: Path, **more: str) -> dict[str, str]:
    """An environment in which no daemon of the machine is found."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "LC_ALL"}}
    return kept | {"HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | more


def command(*words: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "supervisor", *words]


def run(home: Path, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> Done:
    done = subprocess.run(
        command(*words),
        env=environment(home, **(env or {})),
        cwd=home,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def begin(home: Path, *words: str, **more: Any) -> subprocess.Popen[str]:
    """A command that is still running, in a session of its own so that Ctrl-C reaches it alone."""
    return subprocess.Popen(
        command(*words),
        env=environment(home, **more.pop("env", {})),
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )


def read_until(stream: IO[str] | None, text: str) -> str:
    """Read lines until one contains the text; the test's time-out is the deadline."""
    assert stream is not None
    found = ""
    for line in stream:
        found += line
        if text in line:
            return found
    raise AssertionError(f"{text!r} never came; but {found!r}")


def on_terminal(home: Path, *words: str, **env: str) -> str:
    """What a command writes to a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command(*words), env=environment(home, **env), cwd=home, stdout=slave, stderr=slave
    )
    os.close(slave)
    text = b""
    try:
        while piece := os.read(master, 65536):
            text += piece
    except OSError:
        pass  # EIO: the other side is closed
    os.close(master)
    assert 0 == process.wait(30)
    return text.decode()
