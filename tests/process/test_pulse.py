"""Whether a process has done anything since it answered, by the processor time that it used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from supervisor.process.identity import LINUX, identify
from supervisor.process.pulse import Pulse
from tests.waiting import DEADLINE, wait_for

pytestmark = pytest.mark.skipif(not LINUX, reason="elsewhere nothing is known, and all is doubtful")
# Computes a moment for each line, and answers it.
ECHO = "import sys\nfor line in sys.stdin:\n    sum(range(100_000))\n    print(line, end='', flush=True)"


class Echo:
    """A process that answers lines, and its pulse."""

    def __init__(self) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pulse = Pulse(identify(self.popen.pid))

    def answer(self) -> None:
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        print("a", file=self.popen.stdin, flush=True)
        assert "a\n" == self.popen.stdout.readline()

    def answer_asked(self) -> None:
        self.pulse.ask()
        self.answer()
        self.pulse.answer()
        wait_for(lambda: not self.pulse.is_doubtful(), "it waits again")


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.popen.kill()
    made.popen.communicate(timeout=DEADLINE)


def test_a_process_that_has_not_answered_is_doubtful(echo: Echo) -> None:
    assert echo.pulse.is_doubtful()

    echo.answer()

    assert echo.pulse.is_doubtful()


def test_one_that_answered_and_waits_is_not_and_one_that_has_worked_since_is(echo: Echo) -> None:
    echo.answer_asked()

    echo.answer()

    assert echo.pulse.is_doubtful()


def test_one_that_is_stopped_is_doubtful_though_it_uses_nothing(echo: Echo) -> None:
    echo.answer_asked()

    os.kill(echo.popen.pid, signal.SIGSTOP)

    wait_for(echo.pulse.is_doubtful, "it is seen that it is stopped")


def test_an_answer_for_which_it_did_nothing_is_that_of_another(sleeper: subprocess.Popen[bytes]) -> None:
    pulse = Pulse(identify(sleeper.pid))
    pulse.ask()

    pulse.answer()

    assert pulse.is_doubtful()


def test_one_that_has_ended_is_doubtful(echo: Echo) -> None:
    echo.answer_asked()

    echo.popen.kill()
    echo.popen.wait(DEADLINE)

    assert echo.pulse.is_doubtful()
