"""What clients have asked: passed on, kept, or answered in the kernel's place; each once."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.jupyter import requests as module
from supervisor.jupyter.recorder import Request
from supervisor.jupyter.requests import Requests
from tests.waiting import until


class Kernel:
    """A kernel that keeps what it was asked, and what was said in its place."""

    def __init__(self) -> None:
        self.kernel_name, self.execution_state, self.reason = "a", "idle", ""
        self.sent: list[str] = []
        self.told: list[tuple[str, str, Any]] = []
        self.said: list[tuple[str, Any]] = []
        self.ended: list[str] = []
        self.up = asyncio.Event()
        self.run: Any = SimpleNamespace(send=self._send)
        self.recorder: Any = SimpleNamespace(ask=lambda _: None, end=self.ended.append)

    def _send(self, channel: str, parts: list[bytes]) -> None:
        self.sent.append(json.loads(parts[0])["msg_id"])

    def tell(self, session: str, kind: str, content: Any, *_: Any) -> None:
        told = content.get("status") or content.get("evalue") or content["execution_state"]
        self.told.append((session, kind, told))
        self.said.append((kind, content))


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def requests(kernel: Kernel) -> Requests:
    return Requests(kernel)


def parts(id_: str, session: str = "s", kind: str = "execute_request") -> list[bytes]:
    header = {"msg_id": id_, "session": session, "msg_type": kind}
    return [json.dumps(part).encode() for part in (header, {}, {}, {"code": "1"})]


def answer_of(session: str, kind: str = "execute", status: str = "error", reason: str = "") -> list[Any]:
    error = [(session, "error", reason)] if reason else []
    return [*error, (session, f"{kind}_reply", status), (session, "status", "idle")]


def test_a_kernel_that_is_up_is_asked(kernel: Kernel, requests: Requests) -> None:
    kernel.up.set()

    requests.ask("s", "shell", parts("1"))

    assert (["1"], []) == (kernel.sent, kernel.told)


def test_what_is_no_message_is_dropped(kernel: Kernel, requests: Requests) -> None:
    kernel.up.set()

    for sent in ([b"{"] * 4, [b"{}"] * 2, [b"[]"] * 4, [b"[" * 100_000] * 4):
        requests.ask("s", "shell", sent)

    assert ([], []) == (kernel.sent, kernel.told)


def test_what_comes_before_it_is_up_is_asked_then_and_in_order(kernel: Kernel, requests: Requests) -> None:
    kernel.execution_state = "starting"
    for number in "123":
        requests.ask("s", "shell", parts(number))
    assert [] == kernel.sent

    kernel.up.set()
    requests.release()

    assert (["1", "2", "3"], []) == (kernel.sent, kernel.told)


def test_what_was_kept_for_one_that_is_dead_is_refused_with_the_reason(
    kernel: Kernel, requests: Requests
) -> None:
    requests.ask("s", "shell", parts("1"))
    kernel.execution_state, kernel.reason = "dead", "a failed"

    requests.release()
    requests.ask("t", "control", parts("2", "t", "debug_request"))

    assert [*answer_of("s", reason="a failed"), *answer_of("t", "debug")] == kernel.told
    assert [] == kernel.sent


def test_more_than_may_wait_is_refused(
    kernel: Kernel, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_HELD", 2 * sum(map(len, parts("1"))))

    requests.ask("s", "shell", parts("1"))
    requests.ask("s", "shell", parts("2"))
    requests.ask("s", "shell", parts("3"))

    assert answer_of("s", reason="a is not running") == kernel.told


def test_an_answer_is_for_the_session_that_asked_and_ends_the_request(
    kernel: Kernel, requests: Requests
) -> None:
    kernel.up.set()
    requests.ask("page", "shell", parts("1", "s"))
    parent = {"msg_id": "1", "session": "s"}

    assert ["page", "page", "s"] == [
        requests.hear(channel, parent) for channel in ("iopub", "shell", "shell")
    ]
    assert ["1"] == kernel.ended
    assert set() == requests.end("it died")


def test_the_end_of_a_run_answers_each_request_and_tells_each_page_once(
    kernel: Kernel, requests: Requests
) -> None:
    kernel.up.set()
    requests.ask("s", "shell", parts("1"))
    requests.ask("s", "shell", parts("2"))
    requests.ask("t", "shell", parts("3", "t", "complete_request"))

    assert {"s"} == requests.end("it died")

    queued = answer_of("s", status="aborted")
    assert [*answer_of("s", reason="it died"), *queued, *answer_of("t", "complete")] == kernel.told
    assert set() == requests.end("it died")


def test_of_more_open_requests_than_there_is_room_for_the_oldest_is_forgotten(
    kernel: Kernel, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OPEN", 1)
    kernel.up.set()
    requests.ask("s", "shell", parts("1"))
    requests.ask("t", "shell", parts("2", "t"))

    assert {"t"} == requests.end("it died")


async def test_one_of_a_server_that_is_gone_that_is_forgotten_holds_up_no_other(
    kernel: Kernel, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [SimpleNamespace(header=parts(f"old {number}")[0]) for number in range(20)]

    async def open_requests(_: str) -> list[Any]:
        return old

    async def told(_: str) -> list[Any]:
        return []

    kernel.recorder.open_requests, kernel.recorder.told = open_requests, told
    monkeypatch.setattr(module, "MOST_OPEN", len(old))
    kernel.up.set()
    kernel.execution_state = "busy"
    await requests.resume("s")
    for number in range(len(old) - 1):
        requests.ask("s", "shell", parts(f"new {number}"))

    kernel.execution_state = "idle"
    requests.settle()

    await until(lambda: kernel.told)
    assert answer_of("s", reason="its answer came while no server was there to hear it") == kernel.told


@pytest.mark.parametrize(
    ("told", "count"),
    [
        ([("execute_input", {"execution_count": 3}), ("status", {"execution_state": "idle"})], 3),
        ([("execute_result", {"execution_count": 4}), ("status", {"execution_state": "idle"})], 4),
        ([("status", {"execution_state": "idle"})], 0),
    ],
)
async def test_an_answer_that_went_to_a_server_that_is_gone_is_given_anew_and_has_a_number(
    kernel: Kernel, requests: Requests, told: list[tuple[str, Any]], count: int
) -> None:
    async def open_requests(_: str) -> list[Request]:
        return [
            Request(
                "1", "s", "", json.dumps({"msg_id": "1", "session": "s", "msg_type": "execute_request"}), "1"
            )
        ]

    async def all_told(_: str) -> list[Any]:
        return [SimpleNamespace(kind=kind, content=content) for kind, content in told]

    kernel.recorder.open_requests, kernel.recorder.told = open_requests, all_told

    await requests.resume("s")
    await until(lambda: len(kernel.said) == 2)

    assert ("execute_reply", "ok", count) == (
        kernel.said[0][0],
        kernel.said[0][1]["status"],
        kernel.said[0][1]["execution_count"],
    )
