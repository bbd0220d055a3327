"""What a kernel tells its pages as the daemon's view of it changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.jupyter import kernels
from supervisor.jupyter.daemon import Daemon
from supervisor.jupyter.kernels import SupervisedKernel
from supervisor.jupyter.requests import Asked
from tests.jupyter.test_requests import answer_of, parts
from tests.waiting import until


class Heard:
    """A page that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def hear(self, channel: str, parts: list[bytes]) -> None:
        content = json.loads(parts[3])
        self.told.append(content.get("text") or content["execution_state"])


def view(phase: str, **more: Any) -> dict[str, Any]:
    return {"id": "x", "name": "a", "phase": phase, "generation": 1, "reason": "", **more}


class Sent:
    """A run that keeps what it was sent."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def send(self, channel: str, parts: list[bytes]) -> None:
        self.ids.append(json.loads(parts[0])["msg_id"])


class Kernel(SupervisedKernel):
    """A kernel that keeps what was said in its place."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        super().__init__(view("starting"), Daemon())
        self.take(view("starting"))

    def tell(self, session: str, kind: str, content: Any, *_: Any) -> None:
        said = content.get("status") or content.get("evalue") or content["execution_state"]
        self.told.append((session, kind, said))


def ask(kernel: Kernel, id_: str, session: str = "s", kind: str = "execute_request") -> None:
    sent = parts(id_, session, kind)
    kernel.ask(Asked.of(session, "shell", sent), sent)


@pytest.mark.parametrize(
    ("phase", "state", "told"),
    [
        ("waiting", "starting", []),
        ("backoff", "restarting", []),
        ("stopping", "restarting", []),
        ("stopped", "dead", ["a was stopped.\n", "dead"]),
        ("failed", "dead", ["a has failed. It is not started again: why\n", "dead"]),
    ],
)
async def test_a_kernel_that_is_still_to_come_ends_no_page(phase: str, state: str, told: list[str]) -> None:
    kernel, page = SupervisedKernel(view("starting"), Daemon()), Heard()
    kernel.pages["session"] = page.hear
    kernel.take(view("starting"))

    kernel.take(view(phase, reason="why" if phase == "failed" else ""))

    assert (state, told) == (kernel.execution_state, page.told)


def reach(kernel: Kernel) -> Sent:
    run = Sent()
    kernel.run = run
    kernel.up.set()
    return run


async def test_what_comes_before_it_is_up_is_asked_then_and_in_order() -> None:
    kernel = Kernel()
    for number in "123":
        ask(kernel, number)

    run = reach(kernel)
    kernel._release()
    ask(kernel, "4")

    assert (["1", "2", "3", "4"], []) == (run.ids, kernel.told)


async def test_what_was_kept_for_one_that_is_dead_is_refused_with_the_reason() -> None:
    kernel = Kernel()
    ask(kernel, "1")

    kernel.take(view("stopped"))
    ask(kernel, "2", "t", "debug_request")
    ask(kernel, "3", "t", "comm_msg")

    assert [*answer_of("s", reason="a was stopped."), *answer_of("t", "debug")] == kernel.told


async def test_more_than_may_wait_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "MOST_HELD_BYTES", 2 * sum(map(len, parts("1"))))
    kernel = Kernel()

    for number in "123":
        ask(kernel, number)

    assert answer_of("s", reason="a is not running") == kernel.told


async def test_what_is_published_may_be_heard_after_the_kernel_was_found_idle(tmp_path: Path) -> None:
    kernel, sent = Kernel(), parts("1")
    kernel.recorder.record_to(tmp_path / "x.sqlite", 1 << 20, 3600.0)
    header = json.loads(sent[0])
    kernel.recorder.add("shell", "s", header, header, sent, missed=False)
    await kernel.requests.resume("s")

    kernel.note_state("idle")
    for _ in range(2):  # in which it would look
        await kernel.recorder.flush()
    idle = [b"{}", b"{}", b"{}", b'{"execution_state": "idle"}']
    kernel.hear("iopub", {"msg_id": "m", "msg_type": "status"}, header, idle)

    await until(lambda: kernel.told)
    assert answer_of("s", status="ok") == kernel.told
