"""What may be asked at the door, and what is told of a request that is wrong."""

from __future__ import annotations

import pytest

from supervisor.core import events
from tests.control.conftest import ask, raw, read_all
from tests.control.fake_steering import FakeDaemon, FakeSteering


def test_fields_may_come_in_the_query(daemon: FakeDaemon, steering: FakeSteering) -> None:
    answer = ask(daemon, "POST", "/v1/kernels/robot/restart", now=True, wait=False, timeout=2.5)

    assert 202 == answer.status
    assert [events.Restart("robot", now=True)] == steering.orders


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"nwo": True}, "'nwo' is not a field of this request"),
        ({"now": "maybe"}, "the request is not valid: Expected `bool`, got `str` - at `$.now`"),
        ({"timeout": 0}, "the request is not valid: Expected `float` > 0.0 - at `$.timeout`"),
        ([1], "the body is not a JSON object"),
    ],
)
def test_a_wrong_field_is_told(daemon: FakeDaemon, steering: FakeSteering, body: object, error: str) -> None:
    answer = ask(daemon, "POST", "/v1/kernels/robot/stop", body)

    assert 400 == answer.status
    assert error == answer.body["error"]
    assert [] == steering.orders


def test_an_unknown_signal_gets_a_hint(daemon: FakeDaemon) -> None:
    for wrong, hint in (("TERN", "did you mean 'SIGTERM'?"), (0, "status tells whether the kernel lives")):
        answer = ask(daemon, "POST", "/v1/kernels/robot/signal", {"signal": wrong})

        assert (400, hint) == (answer.status, answer.body["hint"])


@pytest.mark.parametrize(
    ("method", "line", "status"),
    [
        ("GET", "http://[::1/", 400),
        ("HEAD", "/v1/status", 405),
        ("HEAD", "/v1/nothing", 404),
        ("GET", "/v1/kernels/a%00b", 404),
        ("POST", "/v1/plan?path=%00", 400),
        ("POST", "/v1/plan?path=/a%00b", 400),
        ("GET", f"/v1/events?last={2**63}", 400),
        ("GET", f"/v1/events?last={2**64}", 400),
        ("GET", "/v1/status?a=1&" + "&".join(["b=2"] * 1001), 400),
    ],
)
def test_odd_requests_are_mistakes_of_the_client_and_leave_no_traceback(
    daemon: FakeDaemon, caplog: pytest.LogCaptureFixture, method: str, line: str, status: int
) -> None:
    with raw(daemon) as sock:
        sock.sendall(f"{method} {line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = read_all(sock).partition(b"\r\n\r\n")

    assert str(status) == head.split()[1].decode()
    assert (method == "HEAD") == (not body)
    assert [] == caplog.records


def test_a_time_that_is_none_is_refused(daemon: FakeDaemon) -> None:
    answer = ask(daemon, "GET", "/v1/events", since="yesterday")

    assert (400, "an example: 2025-01-31T12:00:00Z") == (answer.status, answer.body["hint"])
