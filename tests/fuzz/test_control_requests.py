"""Whatever is asked at the control door is answered, and nothing is a mistake of the program."""

from __future__ import annotations

import asyncio
import json
import string
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.control.requests import RequestError
from supervisor.control.routes import ROUTES, answer
from tests.control.conftest import ask, daemon, raw, read_all, steering
from tests.control.fake_steering import FakeDaemon, FakeSteering

__all__ = ["daemon", "steering"]

NAMES = ("analysis", "robot", "nobody", "")
FIELDS = (
    "wait",
    "timeout",
    "now",
    "new_ports",
    "signal",
    "path",
    "kernel",
    "follow",
    "event",
    "since",
    "last",
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
odd_texts = st.sampled_from(
    [
        *("", "1", "0", "-1", "true", "1e309", "nan", "SIGTERM", "KILL", "9", "99", "2025-01-31"),
        *(
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59-14:00",
            "\u0663",
            "\ud800",
            "\0",
            "a" * 5000,
            str(2**63),
        ),
    ]
)
values = json_values | odd_texts
bodies = (
    st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), values, max_size=4).map(
        lambda fields: json.dumps(fields).encode("utf-8", "replace")
    )
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=200)
    | st.just(b"[" * 100_000)
)
paths = (
    st.tuples(st.sampled_from(ROUTES), st.sampled_from(NAMES) | st.text(max_size=20)).map(
        lambda found: found[0].path.replace("{name}", found[1])
    )
    | st.text(alphabet=string.printable, max_size=60)
    | st.sampled_from(["/v1/openapi.json", "http://[::1/", "/v1/kernels/a%00b"])
)
methods = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]) | st.text(max_size=8)
queries = st.dictionaries(
    st.sampled_from(FIELDS) | st.text(max_size=5),
    st.lists(odd_texts | st.text(max_size=20), min_size=1, max_size=2),
    max_size=3,
)


async def _answer(method: str, path: str, query: dict[str, list[str]], body: bytes) -> int:
    steering = FakeSteering(Path("/nowhere"))
    try:
        reply = await answer(
            steering, method, f"{path}?{urlencode(query, doseq=True, errors='replace')}", body
        )
    except RequestError as error:
        # It is told in words, in the form of an answer.
        json.dumps([error.message, error.hint]).encode("ascii")
        return error.status
    if reply.stream is not None:
        first: Any = asyncio.ensure_future(anext(aiter(reply.stream), None))
        await asyncio.wait([first], timeout=0.001)
        first.cancel()
    return reply.status


@settings(max_examples=300)
@given(methods, paths, queries, bodies)
def test_every_request_has_an_answer(
    method: str, path: str, query: dict[str, list[str]], body: bytes
) -> None:
    status = asyncio.run(_answer(method, path, query, body))

    assert status in (200, 202, 400, 404, 405, 409, 422)


heads = st.sampled_from([b"GET /v1/status HTTP/1.1\r\n", b"POST /v1/kernels/robot/stop HTTP/1.1\r\n", b""])
header_lines = st.lists(
    st.sampled_from(
        [
            *(b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: x\r\n"),
            *(b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n"),
            *(b"Expect: 100-continue\r\n", b"Content-Encoding: gzip\r\n", b"Connection: close\r\n"),
            *(b"Host: x\r\n", b": \r\n", b"\0: \xff\r\n"),
        ]
    )
    | st.binary(max_size=40),
    max_size=4,
).map(b"".join)


@settings(max_examples=100)
@given(head=heads, headers=header_lines, body=st.binary(max_size=100))
def test_whatever_bytes_a_client_sends_the_next_one_is_served(
    daemon: FakeDaemon, head: bytes, headers: bytes, body: bytes
) -> None:
    with raw(daemon) as sock:
        try:
            sock.sendall(head + headers + b"\r\n" + body)
            sock.shutdown(1)
        except OSError:
            pass  # it was turned away while it still spoke
        said = read_all(sock)

    assert not said.startswith(b"HTTP/1.1 500"), said
    assert 200 == ask(daemon, "GET", "/v1/status").status


@settings(max_examples=100)
@given(path=st.sampled_from([route.path for route in ROUTES if "shutdown" not in route.path]), query=queries)
def test_whatever_query_a_client_sends_it_is_answered_in_json(
    daemon: FakeDaemon, path: str, query: dict[str, list[str]]
) -> None:
    text = urlencode({name: texts[0] for name, texts in query.items() if name != "follow"}, errors="replace")
    with raw(daemon) as sock:
        line = f"GET {path.replace('{name}', 'robot')}?{text} HTTP/1.1\r\nConnection: close\r\n\r\n"
        sock.sendall(line.encode())
        head, _, body = read_all(sock).partition(b"\r\n\r\n")

    assert int(head.split()[1]) in (200, 400, 404, 405, 431), head
    if b"ndjson" not in head and body:
        assert isinstance(json.loads(body), dict)
