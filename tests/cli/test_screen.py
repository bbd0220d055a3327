"""What is written to a terminal: colours, its width, a line that goes away again."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

from tests.cli.tools import command, environment, on_terminal
from tests.control.fake_steering import FakeDaemon, FakeSteering


def test_status_on_a_terminal_has_colours_and_its_width(daemon: FakeDaemon, tmp_path: Path) -> None:
    text = on_terminal(tmp_path, "status", "--socket", str(daemon.path), TERM="xterm")

    assert "\x1b[32mrunning\x1b[0m" in text
    plain = text.replace("\x1b[32m", "").replace("\x1b[0m", "").replace("\x1b[1m", "").replace("\x1b[2m", "")
    assert all(len(line) <= 80 for line in plain.splitlines())


def test_no_color_is_honoured(daemon: FakeDaemon, tmp_path: Path) -> None:
    text = on_terminal(tmp_path, "status", "--socket", str(daemon.path), TERM="xterm", NO_COLOR="1")

    assert "\x1b" not in text


def test_a_long_order_shows_its_progress_on_a_terminal(
    daemon: FakeDaemon, steering: FakeSteering, tmp_path: Path
) -> None:
    steering.slow.add("robot")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command("stop", "--all", "--socket", str(daemon.path)),
        env=environment(tmp_path, TERM="xterm"),
        cwd=tmp_path,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    text = b""
    while b"2 of 3; waiting for robot stopping" not in text:
        text += os.read(master, 65536)
    daemon.call(steering.release.set)

    assert 0 == process.wait(30)
    os.close(master)
