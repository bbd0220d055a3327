"""The spare of a kernel: grown, parked, taken, and ended in any other case."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from supervisor.core.events import Fact, SpareEnded, SpareParked
from supervisor.kernel.spares import Spares
from supervisor.kernel.warmth import Spare
from supervisor.warm.command import NotWarm
from supervisor.warm.zygotes import Forked
from tests.waiting import DEADLINE, until


class Warmth:
    """Grows what is a sleeping process, once it may; says what the test says."""

    def __init__(self, pid: int) -> None:
        ours, self.child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.forked = Forked(pid, os.pidfd_open(pid), ours)
        self.may, self.refusal = threading.Event(), ""
        self.may.set()

    def park(self, wanted: Any, number: int, tell: Any) -> Spare:
        assert self.may.wait(DEADLINE)
        if self.refusal:
            raise NotWarm(self.refusal)
        return Spare(number, self.forked, wanted, [], ("", ""))


class Growing:
    """The spares of a kernel, and what they told."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self.warmth = process, Warmth(process.pid)
        self.facts: list[Fact] = []
        self.spares: Any = Spares("a", self.warmth)  # type: ignore[arg-type]

    def park(self, number: int = 1) -> None:
        async def resolve() -> None:
            return None

        self.spares.park(number, resolve, lambda *_: None, self.facts.append)

    def say(self, **words: object) -> None:
        self.warmth.child.send(json.dumps(words).encode())

    async def parked(self) -> None:
        self.park()
        self.say(parked=True)
        await until(lambda: [SpareParked("a", 1)] == self.facts)

    async def wait_ended(self) -> None:
        await until(lambda: self.process.poll() is not None)


@pytest.fixture
def growing(sleeper: subprocess.Popen[bytes]) -> Iterator[Growing]:
    made = Growing(sleeper)
    yield made
    made.warmth.child.close()
    if made.warmth.forked.cord.fileno() >= 0:
        made.warmth.forked.close()


async def test_one_that_is_parked_is_taken_by_its_number_and_once(growing: Growing) -> None:
    await growing.parked()

    taken = growing.spares.take(1)

    assert taken is not None
    assert growing.process.pid == taken.forked.pid
    assert growing.process.poll() is None
    assert growing.spares.take(1) is None


@pytest.mark.parametrize("number", [2, None])
async def test_one_of_another_number_is_ended(growing: Growing, number: int | None) -> None:
    await growing.parked()

    assert growing.spares.take(number) is None
    await growing.wait_ended()


@pytest.mark.parametrize(
    ("words", "reason"), [({"failed": "Traceback\nValueError: x\n"}, "ValueError: x"), ({}, "it ended")]
)
async def test_why_one_is_of_no_use_is_told(growing: Growing, words: dict[str, str], reason: str) -> None:
    growing.park()

    growing.say(**words)

    await until(lambda: [SpareEnded("a", 1, reason)] == growing.facts)
    await growing.wait_ended()


async def test_that_one_has_ended_after_it_was_parked_is_told(growing: Growing) -> None:
    await growing.parked()

    growing.warmth.child.close()

    await until(lambda: [SpareParked("a", 1), SpareEnded("a", 1, "it ended")] == growing.facts)


async def test_what_cannot_be_grown_is_told(growing: Growing) -> None:
    growing.warmth.refusal = "its imports take long"

    growing.park()

    await until(lambda: [SpareEnded("a", 1, "its imports take long")] == growing.facts)


async def test_one_that_is_discarded_while_it_is_grown_ends_without_a_word(growing: Growing) -> None:
    growing.warmth.may.clear()
    growing.park()
    await asyncio.sleep(0)

    growing.spares.discard()
    growing.warmth.may.set()

    await growing.wait_ended()
    assert [] == growing.facts
