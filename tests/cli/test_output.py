"""The verb output: what a kernel wrote."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cli.tools import Cli, begin, on_terminal, read_until, run
from tests.control.fake_steering import FakeDaemon, FakeSteering


@pytest.mark.parametrize("name", ["robot", "r" * 300])
def test_output_of_a_kernel_without_a_daemon_and_without_a_file_is_told(tmp_path: Path, name: str) -> None:
    code, out, err = run(tmp_path, "output", name)

    assert (3, "") == (code, out)
    assert "no daemon answers; tried:" in err


def test_output_that_cannot_be_read_is_told(cli: Cli, steering: FakeSteering) -> None:
    (steering.tmp / "output" / "robot.log").mkdir(parents=True)

    for words in (["output", "robot"], ["output", "-f", "robot"]):
        code, out, err = cli(*words)

        assert (1, "") == (code, out)
        assert err.endswith("robot.log: cannot be read: it is a directory: remove it\n")


def test_output_is_what_the_kernel_wrote(cli: Cli, steering: FakeSteering) -> None:
    file = steering.tmp / "output" / "robot.log"
    file.parent.mkdir()
    file.write_text("one\ntwo\nthree\n")

    assert "one\ntwo\nthree\n" == cli("output", "robot").out
    assert "three\n" == cli("output", "robot", "-n", "1").out


def test_output_follows(daemon: FakeDaemon, steering: FakeSteering, tmp_path: Path) -> None:
    file = tmp_path / "output" / "robot.log"
    file.parent.mkdir()
    file.write_text("one\n")
    process = begin(tmp_path, "output", "-f", "robot", "--socket", str(daemon.path))
    read_until(process.stdout, "one")
    with file.open("a") as written:
        written.write("two\n")
    read_until(process.stdout, "two")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert 0 == process.returncode


def test_a_terminal_obeys_no_kernel_unless_it_is_asked_to(
    daemon: FakeDaemon, steering: FakeSteering, tmp_path: Path
) -> None:
    file = steering.tmp / "output" / "robot.log"
    file.parent.mkdir()
    file.write_text("\x1b[31mred\x1b[0m \x1b]0;pwned\x07\x1b[2J\n")
    words = ("output", "robot", "--socket", str(daemon.path))

    shown, raw = on_terminal(tmp_path, *words), on_terminal(tmp_path, *words, "--raw")

    assert ["\x1b[31mred\x1b[0m \\x1b]0;pwned\\x07\\x1b[2J"] == shown.splitlines()
    assert "\x1b]0;pwned\x07\x1b[2J" in raw
    assert file.read_text() == run(tmp_path, *words).out, "a pipe gets it as it is"


def test_output_of_a_socket_that_was_named_is_never_what_another_daemon_left(tmp_path: Path) -> None:
    file = tmp_path / ".local/state/kernel-supervisor/output/robot.log"
    file.parent.mkdir(parents=True)
    file.write_text("another's\n")

    assert 3 == run(tmp_path, "output", "robot", "--socket", "nowhere").code
    assert "another's\n" == run(tmp_path, "output", "robot").out
