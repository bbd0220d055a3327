"""The zygotes of a supervisor: which there are, what they are for, and when there is another."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.warm import zygotes as module
from supervisor.warm.command import NotWarm
from supervisor.warm.zygotes import Cause, Zygote, Zygotes
from tests.waiting import DEADLINE, wait_for
from tests.warm.kept import Kept

# Says what it is told to in its environment, and forks nothing.
ZYGOTE = """
import json, os, socket, sys, time
control = socket.socket(fileno=int(sys.argv[1]))
wishes = json.loads(control.recv(1 << 17))
time.sleep(float(os.environ.get("TAKES", "0")))
if "ENDS" in os.environ:
    sys.exit(3)
file = wishes["preload"][0]
told = os.stat(file)
prints = os.memfd_create("prints")
os.write(prints, json.dumps({file: [told.st_mtime_ns, told.st_size, told.st_ino]}).encode())
hello = {"unfit": os.environ.get("UNFIT", ""), "ipykernel": "7"}
socket.send_fds(control, [json.dumps(hello).encode()], [prints])
control.recv(100)
"""


class Some:
    """Zygotes that are small programs, and what is told of them."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "imported.py"
        self.file.write_text("x = 1")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.told: list[str] = []
        self.reasons: list[object] = []
        self.zygotes = Zygotes(self._spawn)

    def _spawn(self, argv: list[str], env: dict[str, str], cwd: str, fd: int) -> subprocess.Popen[bytes]:
        popen = subprocess.Popen([sys.executable, "-c", ZYGOTE, argv[-2]], env=env, cwd=cwd, pass_fds=[fd])
        self.processes.append(popen)
        return popen

    def tell(self, event: str, fields: dict[str, Any]) -> None:
        self.told.append(event)
        self.reasons.append(fields.get("reason"))

    def get(self, user: str = "a", patience: float = DEADLINE, **env: str) -> Zygote:
        cause = Cause((sys.executable,), tuple(env.items()), "/", (str(self.file),))
        return self.zygotes.get(user, cause, "mark", patience, self.tell)


@pytest.fixture
def some(tmp_path: Path) -> Iterator[Some]:
    made = Some(tmp_path)
    yield made
    made.zygotes.bury()
    made.zygotes.close()
    for process in made.processes:
        process.kill()
        process.wait(DEADLINE)


def test_kernels_that_want_the_same_share_one(some: Some) -> None:
    assert some.get("a") is some.get("b") is some.get("a")

    assert some.get("c", OTHER="1") is not some.get("a")
    assert ["zygote.ready"] * 2 == some.told


def test_one_that_nobody_wants_any_more_retires(some: Some) -> None:
    some.get("a")
    some.get("b")

    some.get("a", OTHER="1")
    assert some.processes[0].poll() is None
    some.zygotes.leave("b")

    wait_for(lambda: some.processes[0].poll() is not None, "it has ended")
    assert some.processes[1].poll() is None


def test_one_that_is_unfit_is_told_once_and_not_tried_again_for_a_while(
    some: Some, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        with pytest.raises(NotWarm, match="a thread lives"):
            some.get(UNFIT="a thread lives")
    assert (["zygote.unfit"], 1) == (some.told, len(some.processes))

    monkeypatch.setattr(module, "UNFIT_FOR", 0.0)
    with pytest.raises(NotWarm, match="a thread lives"):
        some.get(UNFIT="a thread lives")

    assert 2 == len(some.processes)


def test_one_that_ends_while_it_imports_is_unfit(some: Some) -> None:
    with pytest.raises(NotWarm, match=r"it ended while it imported \(status 3\)"):
        some.get(ENDS="1")


def test_one_whose_imports_take_long_is_waited_for_later(some: Some) -> None:
    with pytest.raises(NotWarm, match="its imports take long"):
        some.get(patience=0.0, TAKES="0.1")

    some.get(TAKES="0.1")

    assert (["zygote.ready"], 1) == (some.told, len(some.processes))


def test_one_whose_imports_take_for_ever_is_unfit(some: Some, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMPORT_PATIENCE", 0.0)

    with pytest.raises(NotWarm, match="its imports took more than 0 s"):
        some.get(patience=0.0, TAKES="600")

    assert some.processes[0].poll() is not None


def test_one_that_has_imported_what_has_changed_since_is_exchanged(some: Some) -> None:
    first = some.get()

    some.file.write_text("x = 22")

    assert str(some.file) == first.stale()
    assert first is not some.get()
    assert ["zygote.ready", "zygote.retired", "zygote.ready"] == some.told
    assert f"changed: {some.file}" == some.reasons[1]


def test_one_that_has_died_is_begun_anew(some: Some) -> None:
    first = some.get()
    some.processes[0].kill()
    wait_for(lambda: not first.is_alive, "it has died")

    assert first is not some.get()


def test_a_zygote_is_heard_on_any_descriptor(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In a daemon of some two hundred kernels its socket has a number that ``select`` does not know."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("the system allows fewer than 1,200 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    request.addfinalizer(lambda: [os.close(fd) for fd in taken])
    kept = Kept(tmp_path, how="fork")
    request.addfinalizer(kept.close)
    spare = kept.fork_spare()
    assert spare.cord.fileno() > 1023
    spare.close()
