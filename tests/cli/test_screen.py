"""What is written to a terminal: colours, its width, a line that goes away again."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from supervisor.cli.screen import Shown
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


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["plain\n\ttext\r\n"], "plain\n\ttext\r\n"),
        (["\x1b[1;31mred\x1b[0m"], "\x1b[1;31mred\x1b[0m"),
        (["\x1b]0;title\x07\x1b[2J"], "\\x1b]0;title\\x07\\x1b[2J"),
        (["a\x9b31mb\x08"], "a\\x9b31mb\\x08"),
        (["\x1b", "[3", "1mred\x1b", "[2J"], "\x1b[31mred\\x1b[2J"),
        ([b"caf\xc3", b"\xa9 \xff\x1b"], "caf\u00e9 \ufffd\\x1b"),
        (["\x1b[" + "1;" * 99], "\\x1b[" + "1;" * 99),
    ],
)
def test_a_terminal_gets_lines_and_colours_and_nothing_that_it_would_obey(
    pieces: list[bytes | str], shown: str
) -> None:
    filtered = Shown()

    assert shown == "".join(filtered.of(piece) for piece in pieces) + filtered.of("", ends=True)


@pytest.mark.parametrize("verb", [["status"], ["status", "--json"], ["logs"], ["connection", "robot"]])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_stdout_cannot_encode_is_escaped(
    daemon: FakeDaemon, steering: FakeSteering, tmp_path: Path, verb: list[str], encoding: str
) -> None:
    steering.views["robot"]["connection_file"] = "/home/jos\udce9/\u0416\u20ac/kernel-robot.json"
    daemon.run(steering.tell(event="kernel.died", kernel="robot", output_tail=["\u0416 \udce9"]))

    done = subprocess.run(
        command(*verb, "--socket", str(daemon.path)),
        env=environment(tmp_path, PYTHONIOENCODING=encoding),
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (0, b"") == (done.returncode, done.stderr)
    if "--json" in verb:
        found = json.loads(done.stdout.decode(encoding))["kernels"][1]
        assert steering.views["robot"]["connection_file"] == found["connection_file"]
    if verb[0] == "connection" and encoding == "utf-8":
        assert "/home/jos\udce9/" in os.fsdecode(done.stdout), "as other programs take it"
