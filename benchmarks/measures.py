"""What is measured of each contestant, in rounds that alternate between them.

Owns the rounds.  Every function returns numbers; none judges them.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import asking
from benchmarks.contestants import BOOT, CONTESTANTS, BareLoop, Contestant, Ours
from benchmarks.processes import (
    Late,
    children,
    is_alive,
    processor_time,
    proportional,
    resident,
    threads,
    wait_until,
    wakeups,
)

Samples = dict[str, dict[str, list[float]]]
"""Per measure, per contestant, the values: seconds, MB (10^6 bytes), or per cent of a core."""

_ATTEMPTS = 3
_BETWEEN = 1.5  # seconds from an answer to the next kill, as supervisord needs startsecs = 1


def _say(text: str) -> None:
    print(text, flush=True)


def deaths(directory: Path, rounds: int, further: int) -> Samples:
    """SIGKILL of one kernel: until there is a new process, until it answers where the old one did.

    ``rounds`` with all contestants, then ``further`` ones with those only that
    are too close to each other to be told apart by a few.
    """
    samples: Samples = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        contestants = []
        for kind in CONTESTANTS:
            contestant = kind(directory, 1)
            stack.callback(contestant.end)
            contestant.begin()
            contestants.append(contestant)
        for contestant in contestants:
            contestant.wait_ready()
        time.sleep(max(contestant.settle for contestant in contestants))
        close = [contestant for contestant in contestants if isinstance(contestant, BareLoop | Ours)]
        for number in range(rounds + further):
            # A new order each time: nobody is always measured after the same neighbour.
            compared = contestants if number < rounds else close
            for contestant in random.sample(compared, len(compared)):
                process, answer = _one_death(contestant)
                samples["death_to_process"][contestant.name].append(process)
                samples["death_to_answer"][contestant.name].append(answer)
            _say(f"  deaths: round {number + 1} of {rounds + further}")
    return samples


def _one_death(contestant: Contestant) -> tuple[float, float]:
    # At any moment of the intervals in which some of them look.
    time.sleep(_BETWEEN + random.uniform(0, 3))
    where, old = contestant.addresses(), contestant.kernel(0)
    assert old is not None, f"{contestant.name} has lost its kernel"
    begin = time.perf_counter()
    os.kill(old, signal.SIGKILL)
    wait_until(
        lambda: contestant.kernel(0) not in (None, old), 30, f"{contestant.name}: a new process", 0.0005
    )
    process = time.perf_counter() - begin
    return process, asking.wait_answers(where, BOOT) - begin


def starts(directory: Path, rounds: int) -> dict[str, list[float]]:
    """Start of the manager of one kernel, until it answers, beside the floor; the first round warms up."""
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for kind in random.sample([BareLoop, Ours], 2):
            contestant: Contestant = kind(directory, 1)
            begin = time.perf_counter()
            contestant.begin()
            took = contestant.wait_ready() - begin
            contestant.end()
            if number:
                found[contestant.name].append(took)
    return found


class Many:
    """Start of the manager, memory and processor time at rest, and all kernels killed at once.

    ``failures`` tells of kernels that never answered, with their manager's part in it.
    """

    def __init__(self, directory: Path, count: int, *, rounds: int, rest: float) -> None:
        self.samples: Samples = defaultdict(lambda: defaultdict(list))
        self.failures: list[str] = []
        self._directory = directory
        self._count = count
        self._rounds = rounds
        self._rest = rest

    def sweep(self) -> None:
        """Measure every contestant once, one after the other, in a new order each time."""
        for kind in random.sample(CONTESTANTS, len(CONTESTANTS)):
            for _ in range(_ATTEMPTS):
                try:
                    self._measure(kind(self._directory, self._count))
                    break
                except Late as late:
                    self.failures.append(f"{kind.name}, {self._count} kernels: {late}")
            _say(f"  {self._count} kernels: {kind.name}")

    def _measure(self, contestant: Contestant) -> None:
        try:
            begin = time.perf_counter()
            contestant.begin()
            self._note("start", contestant, contestant.wait_ready() - begin)
            time.sleep(max(3.0, contestant.settle))
            self._look(contestant)
            for _ in range(self._rounds):
                self._note("all_killed", contestant, _all_killed(contestant))
                time.sleep(max(_BETWEEN, contestant.settle / 4))
        finally:
            contestant.end()

    def _look(self, contestant: Contestant) -> None:
        kernels = contestant.kernels()
        begin, used = time.perf_counter(), processor_time(contestant.pid)
        woken, kernels_woken = wakeups(contestant.pid), sum(map(wakeups, kernels))
        time.sleep(self._rest)
        span = time.perf_counter() - begin
        self._note("idle", contestant, (processor_time(contestant.pid) - used) / span * 100)
        self._note("woken", contestant, (wakeups(contestant.pid) - woken) * 60 / span)
        each = (sum(map(wakeups, kernels)) - kernels_woken) / len(kernels)
        self._note("kernel_woken", contestant, each * 60 / span)
        self._note("threads", contestant, threads(contestant.pid))
        self._note("rss", contestant, resident(contestant.pid))
        self._note("pss", contestant, proportional(contestant.pid))

    def _note(self, measure: str, contestant: Contestant, value: float) -> None:
        self.samples[f"{measure}_{self._count}"][contestant.name].append(value)


def _all_killed(contestant: Contestant) -> float:
    where, old = contestant.addresses(), contestant.kernels()
    if len(old) < contestant.count:
        raise Late(f"{contestant.count - len(old)} kernels are not there")
    begin = time.perf_counter()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, old)), 30, "the killed kernels end")
    return asking.wait_answers(where, BOOT) - begin


Survival = dict[str, tuple[int, bool, bool]]
"""Per contestant: kernels alive after the manager's death, taken up by the next one, kept alive by it."""


def survival(directory: Path, count: int) -> Survival:
    """SIGKILL of the manager, and what becomes of its kernels."""
    found: Survival = {}
    for kind in CONTESTANTS:
        contestant = kind(directory, count)
        try:
            contestant.begin()
            contestant.wait_ready()
            time.sleep(max(1.5, contestant.settle))
            found[contestant.name] = _survive(contestant)
        finally:
            contestant.end()
        _say(f"  survival: {contestant.name}: {found[contestant.name]}")
    return found


def _survive(contestant: Contestant) -> tuple[int, bool, bool]:
    old = contestant.kernels()
    assert len(old) == contestant.count, f"{contestant.name} has lost kernels"
    contestant.kill_manager()
    time.sleep(3.0)
    alive = [pid for pid in old if is_alive(pid)]
    contestant.begin()
    started: set[int] = set()
    deadline = time.perf_counter() + 10.0
    while time.perf_counter() < deadline:
        started.update(pid for pid in children(contestant.pid) if contestant.is_kernel(pid))
        time.sleep(0.005)
    # Taken up: all of them live on, and no second process was started for any.
    is_taken_up = alive == old and all(map(is_alive, old)) and not started
    return len(alive), is_taken_up, is_taken_up and _comes_back(contestant, alive[0])


def _comes_back(contestant: Contestant, pid: int) -> bool:
    where = contestant.addresses()
    os.kill(pid, signal.SIGKILL)
    try:
        wait_until(lambda: not is_alive(pid), 10, "the kernel ends")
        asking.wait_answers(where, 20)
    except Late:
        return False
    return bool(contestant.kernels())


def spread(values: Iterable[float]) -> tuple[float, float, float]:
    """Median, least and largest."""
    values = list(values)
    return median(values), min(values), max(values)
