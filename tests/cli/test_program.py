"""The command line without a daemon: help, mistakes, where it looks, what it imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.tools import begin, command, environment, run
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.waiting import DEADLINE


def test_options_may_come_before_the_verb(tmp_path: Path) -> None:
    assert (3, "") == run(tmp_path, "--json", "--socket", "/nowhere", "status")[:2]


@pytest.mark.parametrize(
    "words", [["status"], ["stop", "--all"], ["connection", "robot"], ["logs"], ["reload"]]
)
def test_the_light_verbs_import_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    with FakeDaemon(FakeSteering(tmp_path), tmp_path / "s") as daemon:
        script = (
            "import sys\n"
            "from supervisor.__main__ import main\n"
            f"code = main({[*words, '--socket', str(daemon.path)]!r})\n"
            "heavy = {'zmq', 'tornado', 'structlog', 'msgspec', 'asyncio', 'watchdog', 'psutil', 'email',\n"
            "         'jupyter_client', 'platformdirs', 'http.client', 'dataclasses', 'inspect'}\n"
            "print(code, sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    assert "0 []\n" == done.stderr


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    process = begin(tmp_path, "schema")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.wait(30)
    process.stderr.close()

    assert "" == err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_answer(tmp_path: Path, closed: str) -> None:
    """As in a health check whose output nobody wants."""
    with FakeDaemon(FakeSteering(tmp_path), tmp_path / "s") as daemon:
        words = command("interrupt", "robot", "--socket", str(daemon.path))
        done = subprocess.run(
            ["sh", "-c", f'"$@" {closed}', "sh", *words],
            env=environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    assert (0, "") == (done.returncode, done.stderr)


def test_an_answer_for_which_there_is_no_room_is_told_in_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("schema"),
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    assert "kernel-supervisor: the answer cannot be written: No space left on device\n" == done.stderr
    assert 1 == done.returncode
