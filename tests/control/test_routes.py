"""Each path of the control API, and what it asks of the daemon."""

from __future__ import annotations

import pytest

from supervisor.control.client import Client, target
from supervisor.core import events
from tests.control.conftest import ask, curl
from tests.control.fake_steering import STARTED, FakeDaemon, FakeSteering
from tests.waiting import DEADLINE, wait_for


def test_status_tells_all_kernels_and_the_life_of_the_daemon(daemon: FakeDaemon) -> None:
    answer = ask(daemon, "GET", "/v1/status")

    assert 200 == answer.status
    assert ["analysis", "robot", "stats"] == [kernel["name"] for kernel in answer.body["kernels"]]
    assert "instance-1" == answer.instance == answer.body["instance"]


def test_status_tells_only_the_kernels_that_are_named(daemon: FakeDaemon) -> None:
    answer = ask(daemon, "GET", "/v1/status", kernel=["stats", "robot"])

    assert ["stats", "robot"] == [kernel["name"] for kernel in answer.body["kernels"]]


def test_a_kernel_is_told_by_itself(daemon: FakeDaemon) -> None:
    assert "robot" == ask(daemon, "GET", "/v1/kernels/robot").body["kernel"]["name"]


@pytest.mark.parametrize("path", ["/v1/kernels/robto", "/v1/kernels/robto/connection"])
def test_an_unknown_kernel_gets_a_hint(daemon: FakeDaemon, path: str) -> None:
    answer = ask(daemon, "GET", path)

    assert 404 == answer.status
    assert "no kernel is named 'robto'" == answer.body["error"]
    assert "did you mean 'robot'?" == answer.body["hint"]
    assert "instance-1" == answer.body["instance"]


@pytest.mark.parametrize(
    ("verb", "body", "order"),
    [
        ("start", {}, events.Start("robot")),
        ("stop", {}, events.Stop("robot")),
        ("stop", {"now": True}, events.Stop("robot", now=True)),
        ("restart", {}, events.Restart("robot")),
        ("restart", {"now": True, "new_ports": True}, events.Restart("robot", now=True, new_ports=True)),
        ("interrupt", {}, events.Interrupt("robot")),
        ("restart", {"if_generation": 3}, events.Restart("robot", if_generation=3)),
        ("kill", {}, events.Stop("robot", now=True)),
        ("reset", {}, events.Reset("robot")),
        ("signal", {"signal": "SIGUSR1"}, events.SendSignal("robot", 10)),
        ("signal", {"signal": "usr1"}, events.SendSignal("robot", 10)),
        ("signal", {"signal": 10}, events.SendSignal("robot", 10)),
    ],
)
def test_each_verb_is_its_order(
    daemon: FakeDaemon, steering: FakeSteering, verb: str, body: dict[str, object], order: events.Order
) -> None:
    answer = ask(daemon, "POST", f"/v1/kernels/robot/{verb}", body)

    assert 200 == answer.status
    assert answer.body["ok"] is True
    assert [order] == steering.orders


@pytest.mark.parametrize(
    ("method", "path", "status", "hint"),
    [
        ("GET", "/v1/staus", 404, "did you mean '/v1/status'?"),
        ("POST", "/v1/kernels/robot/stopp", 404, "did you mean 'stop'?"),
        ("POST", "/v1/status", 405, "use GET"),
        ("GET", "/v1/kernels/robot/stop", 405, "use POST"),
        ("BREW", "/v1/reload", 405, "use POST"),
        ("GET", "/", 404, "GET /v1/openapi.json describes what there is"),
    ],
)
def test_a_path_or_method_that_is_not_there_gets_a_hint(
    daemon: FakeDaemon, method: str, path: str, status: int, hint: str
) -> None:
    answer = ask(daemon, method, path)

    assert (status, hint) == (answer.status, answer.body["hint"])


def test_events_replay_and_follow(daemon: FakeDaemon, steering: FakeSteering) -> None:
    daemon.run(steering.tell(event="kernel.ready", kernel="robot"))
    with Client([daemon.path]).connect() as connection:
        connection.send("GET", target("/v1/events", {"follow": True}))
        assert connection.open_stream() is None
        assert "instance-1" == connection.stream_instance
        lines = connection.lines(DEADLINE)
        assert "kernel.ready" == next(lines)["event"]
        daemon.run(steering.tell(event="kernel.died", kernel="robot"))
        assert "kernel.died" == next(lines)["event"]
    wait_for(lambda: steering.followers == 0)


def test_events_are_chosen_by_kernel_event_time_and_number(
    daemon: FakeDaemon, steering: FakeSteering
) -> None:
    for number in range(3):
        daemon.run(steering.tell(event="kernel.ready", kernel="robot", number=number))
    daemon.run(steering.tell(event="kernel.died", kernel="stats"))

    def numbers(**query: object) -> list[object]:
        with Client([daemon.path]).connect() as connection:
            connection.send("GET", target("/v1/events", query))  # type: ignore[arg-type]
            assert connection.open_stream() is None
            return [line.get("number") for line in connection.lines(DEADLINE)]

    assert [0, 1, 2] == numbers(kernel=["robot"])
    assert [1, 2] == numbers(kernel=["robot"], last=2)
    assert [None] == numbers(event="kernel.died")
    assert [0, 1, 2, None] == numbers(since=STARTED)
    assert [] == numbers(since="2999-01-01")


def test_a_mistake_of_the_program_is_answered_and_nothing_is_given_away(
    daemon: FakeDaemon, steering: FakeSteering, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(names: object) -> dict[str, object]:
        raise RuntimeError("secret")

    monkeypatch.setattr(steering, "status", broken)
    answer = ask(daemon, "GET", "/v1/status")

    assert 500 == answer.status
    assert "secret" not in str(answer.body)


def test_curl_is_told_the_life_of_the_daemon_also_in_an_error(daemon: FakeDaemon) -> None:
    code, body = curl(daemon, "http://localhost/v1/nothing")

    assert (404, "instance-1") == (code, body["instance"])


def test_a_text_that_is_no_utf_8_is_told_as_its_escape_and_is_nobody_elses_trouble(
    daemon: FakeDaemon, steering: FakeSteering
) -> None:
    steering.views["robot"]["connection_file"] = "/home/jos\udce9/kernel-robot.json"
    daemon.run(steering.tell(event="kernel.ready", kernel="robot", file="\ud800"))

    answer = ask(daemon, "GET", "/v1/status")
    events = ask(daemon, "GET", "/v1/events")

    assert (200, 200) == (answer.status, events.status)
    assert "/home/jos\udce9/kernel-robot.json" == answer.body["kernels"][1]["connection_file"]
