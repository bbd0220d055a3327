"""Processes to try things on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.kernel.programs import SLEEPER, SUCCESSFUL, end, start, state_of
from tests.waiting import wait_for


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    popen = start(SLEEPER)
    yield popen
    end(popen)


@pytest.fixture
def zombie() -> Iterator[subprocess.Popen[bytes]]:
    popen = start(SUCCESSFUL)
    wait_for(lambda: state_of(popen.pid) == "Z")
    yield popen
    end(popen)
