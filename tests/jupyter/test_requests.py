"""What clients have asked: passed on, kept, or answered in the kernel's place; each once."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from supervisor.jupyter import requests as module
from supervisor.jupyter.recorder import Message
from supervisor.jupyter.requests import MALFORMED, Asked, Requests


class Kernel:
    """What is recorded of a kernel, and what was said in its place."""

    def __init__(self) -> None:
        self.recorded: list[str] = []
        self.told: list[tuple[str, str, Any]] = []
        self.said: list[tuple[str, Any]] = []
        self.open: list[Message] = []
        self.on_record: list[Any] = []

    def add(self, channel: str, session: str, header: Any, *_: Any, **__: Any) -> None:
        self.recorded.append(header["msg_id"])

    async def open_requests(self, _: str) -> list[Message]:
        return self.open

    async def heard(self, _: str) -> list[Any]:
        return self.on_record

    def tell(self, session: str, kind: str, content: Any, *_: Any) -> None:
        told = content.get("status") or content.get("evalue") or content["execution_state"]
        self.told.append((session, kind, told))
        self.said.append((kind, content))


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def requests(kernel: Kernel) -> Requests:
    recorder: Any = SimpleNamespace(add=kernel.add, open_requests=kernel.open_requests, told=kernel.heard)
    return Requests(recorder, kernel.tell)


def ask(requests: Requests, id_: str, session: str = "s", kind: str = "execute_request") -> None:
    sent = parts(id_, session, kind)
    requests.note(Asked.of(session, "shell", sent), sent)


def parts(id_: str, session: str = "s", kind: str = "execute_request") -> list[bytes]:
    header = {"msg_id": id_, "session": session, "msg_type": kind}
    return [json.dumps(part).encode() for part in (header, {}, {}, {"code": "1"})]


def request(id_: str) -> Message:
    packed = msgspec.msgpack.encode(parts(id_))
    return Message(id_, "shell", "s", id_, "execute_request", missed=False, packed=packed, at=0.0)


def answer_of(session: str, kind: str = "execute", status: str = "error", reason: str = "") -> list[Any]:
    error = [(session, "error", reason)] if reason else []
    return [*error, (session, f"{kind}_reply", status), (session, "status", "idle")]


@pytest.mark.parametrize("sent", [[b"{"] * 4, [b"{}"] * 2, [b"[]"] * 4, [b"[" * 100_000] * 4])
def test_what_is_no_message_is_nothing_that_was_asked(sent: list[bytes]) -> None:
    with pytest.raises(MALFORMED):
        Asked.of("s", "shell", sent)


def test_what_is_no_request_has_no_answer() -> None:
    asked = [("stdin", "input_request"), ("shell", "comm_msg"), ("shell", "complete_request")]

    assert [False, False, True] == [
        Asked.of("s", channel, parts("1", kind=kind)).is_request for channel, kind in asked
    ]


def test_an_answer_is_for_the_session_that_asked_and_ends_the_request(
    kernel: Kernel, requests: Requests
) -> None:
    sent = parts("1", "s")
    requests.note(Asked.of("page", "shell", sent), sent)
    parent = {"msg_id": "1", "session": "s"}

    assert ["page", "page", "s"] == [
        requests.hear(channel, parent) for channel in ("iopub", "shell", "shell")
    ]
    assert ["1"] == kernel.recorded
    assert set() == requests.end("it died")


def test_the_end_of_a_run_answers_each_request_and_tells_each_page_once(
    kernel: Kernel, requests: Requests
) -> None:
    ask(requests, "1")
    ask(requests, "2")
    ask(requests, "3", "t", "complete_request")

    assert {"s"} == requests.end("it died")

    queued = answer_of("s", status="aborted")
    assert [*answer_of("s", reason="it died"), *queued, *answer_of("t", "complete")] == kernel.told
    assert set() == requests.end("it died")


def test_of_more_open_requests_than_there_is_room_for_the_oldest_is_forgotten(
    kernel: Kernel, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OPEN", 1)
    ask(requests, "1")
    ask(requests, "2", "t")

    assert {"t"} == requests.end("it died")


async def test_one_of_a_server_that_is_gone_that_is_forgotten_holds_up_no_other(
    kernel: Kernel, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.open = [request(f"old {number}") for number in range(20)]
    monkeypatch.setattr(module, "MOST_OPEN", len(kernel.open))
    await requests.resume("s")
    for number in range(len(kernel.open) - 1):
        ask(requests, f"new {number}")

    await requests.settle(lambda: "busy")
    assert [] == kernel.told
    await requests.settle(lambda: "idle")

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
    kernel.open = [request("1")]
    kernel.on_record = [SimpleNamespace(kind=kind, content=content) for kind, content in told]

    await requests.resume("s")
    await requests.settle(lambda: "busy")

    assert ("execute_reply", "ok", count) == (
        kernel.said[0][0],
        kernel.said[0][1]["status"],
        kernel.said[0][1]["execution_count"],
    )
