"""The door answers as docs/api.md says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from supervisor.control.client import Client, target
from supervisor.core import events
from tests.control.conftest import ask, curl, raw, read_all
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
        ("signal", {"signal": "0"}, events.SendSignal("robot", 0)),
    ],
)
def test_each_verb_is_its_order(
    daemon: FakeDaemon, steering: FakeSteering, verb: str, body: dict[str, object], order: events.Order
) -> None:
    answer = ask(daemon, "POST", f"/v1/kernels/robot/{verb}", body)

    assert 200 == answer.status
    assert answer.body["ok"] is True
    assert [order] == steering.orders


def test_fields_may_come_in_the_query(daemon: FakeDaemon, steering: FakeSteering) -> None:
    answer = ask(daemon, "POST", "/v1/kernels/robot/restart", now=True, wait=False, timeout=2.5)

    assert 202 == answer.status
    assert [events.Restart("robot", now=True)] == steering.orders


def test_a_refused_order_says_why(daemon: FakeDaemon, steering: FakeSteering) -> None:
    steering.refused["robot"] = "robot is disabled"

    answer = ask(daemon, "POST", "/v1/kernels/robot/start", {})

    assert 409 == answer.status
    assert "robot is disabled" == answer.body["error"] == answer.body["message"]
    assert "robot" == answer.body["kernel"]["name"]


def test_an_order_that_takes_long_delays_no_other_request(daemon: FakeDaemon, steering: FakeSteering) -> None:
    steering.slow.add("robot")
    with Client([daemon.path]).connect() as slow:
        slow.send("POST", "/v1/kernels/robot/stop", {})
        wait_for(lambda: steering.orders == [events.Stop("robot")])

        assert 200 == ask(daemon, "POST", "/v1/kernels/stats/restart", {}).status
        assert "stopping" == ask(daemon, "GET", "/v1/kernels/robot").body["kernel"]["phase"]
        daemon.call(steering.release.set)
        assert "stopped" == slow.receive(DEADLINE).body["kernel"]["phase"]


def test_an_order_that_is_not_waited_for_answers_at_once(daemon: FakeDaemon, steering: FakeSteering) -> None:
    steering.slow.add("robot")

    assert 202 == ask(daemon, "POST", "/v1/kernels/robot/stop", {"wait": False}).status


def test_the_waiting_has_an_end(daemon: FakeDaemon, steering: FakeSteering) -> None:
    steering.slow.add("robot")

    answer = ask(daemon, "POST", "/v1/kernels/robot/stop", {"timeout": 0.05})

    assert 409 == answer.status
    assert "still stopping after 0.05 s" == answer.body["message"]


def test_an_order_stands_when_its_client_hangs_up(daemon: FakeDaemon, steering: FakeSteering) -> None:
    steering.slow.add("robot")
    with Client([daemon.path]).connect() as connection:
        connection.send("POST", "/v1/kernels/robot/stop", {})
        wait_for(lambda: len(steering.orders) == 1)
    daemon.call(steering.release.set)

    wait_for(lambda: steering.views["robot"]["phase"] == "stopped")


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
    answer = ask(daemon, "POST", "/v1/kernels/robot/signal", {"signal": "TERN"})

    assert (400, "did you mean 'SIGTERM'?") == (answer.status, answer.body["hint"])


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


def test_reload_tells_what_was_done(daemon: FakeDaemon) -> None:
    answer = ask(daemon, "POST", "/v1/reload")

    assert 200 == answer.status
    assert [("robot", "restart")] == [(line["kernel"], line["action"]) for line in answer.body["changes"]]


def test_reload_of_a_bad_file_tells_every_mistake(daemon: FakeDaemon, steering: FakeSteering) -> None:
    steering.mistakes = ["kernels.toml: a: wrong", "kernels.toml: b: wrong"]

    answer = ask(daemon, "POST", "/v1/reload")

    assert 422 == answer.status
    assert steering.mistakes == answer.body["mistakes"]


def test_plan_may_name_a_file(daemon: FakeDaemon, steering: FakeSteering) -> None:
    answer = ask(daemon, "POST", "/v1/plan", {"path": "/tmp/other.toml"})

    assert (200, "/tmp/other.toml") == (answer.status, steering.planned_path)


def test_detach_and_shutdown_reach_the_daemon(daemon: FakeDaemon, steering: FakeSteering) -> None:
    assert 202 == ask(daemon, "POST", "/v1/detach").status
    assert 202 == ask(daemon, "POST", "/v1/shutdown", {"now": True}).status
    assert ["detach", "shutdown now"] == steering.ended


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


def test_a_time_that_is_none_is_refused(daemon: FakeDaemon) -> None:
    answer = ask(daemon, "GET", "/v1/events", since="yesterday")

    assert (400, "an example: 2025-01-31T12:00:00Z") == (answer.status, answer.body["hint"])


def test_a_mistake_of_the_program_is_answered_and_nothing_is_given_away(
    daemon: FakeDaemon, steering: FakeSteering, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(names: object) -> dict[str, object]:
        raise RuntimeError("secret")

    monkeypatch.setattr(steering, "status", broken)
    answer = ask(daemon, "GET", "/v1/status")

    assert 500 == answer.status
    assert "secret" not in str(answer.body)


def test_the_description_names_every_path_that_the_document_names(daemon: FakeDaemon) -> None:
    document = ask(daemon, "GET", "/v1/openapi.json").body
    verbs = ("start", "stop", "restart", "interrupt", "kill", "reset", "signal")

    assert "3.1.0" == document["openapi"]
    for path in [
        *("/v1/status", "/v1/kernels/{name}", "/v1/kernels/{name}/connection", "/v1/events"),
        *("/v1/reload", "/v1/plan", "/v1/detach", "/v1/shutdown"),
        *(f"/v1/kernels/{{name}}/{verb}" for verb in verbs),
    ]:
        assert path in document["paths"]
    restart = document["paths"]["/v1/kernels/{name}/restart"]["post"]
    schema = restart["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert {"wait", "timeout", "if_generation", "now", "new_ports"} == set(
        document["components"]["schemas"][schema]["properties"]
    )


def examples() -> list[str]:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    blocks = [block.partition("```")[0] for block in text.split("```sh\n")[1:]]
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.mark.parametrize("example", examples())
def test_an_example_of_the_documentation_works(
    daemon: FakeDaemon, steering: FakeSteering, example: str
) -> None:
    daemon.run(steering.tell(event="kernel.ready", kernel="robot"))

    done = subprocess.run(
        ["bash", "-c", example],
        env={"SOCKET": str(daemon.path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    for line in done.stdout.splitlines():
        assert isinstance(json.loads(line), dict)


def test_curl_is_told_the_life_of_the_daemon_also_in_an_error(daemon: FakeDaemon) -> None:
    code, body = curl(daemon, "http://localhost/v1/nothing")

    assert (404, "instance-1") == (code, body["instance"])
