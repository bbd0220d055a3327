"""Orders from the command line: each reaches the daemon, and each outcome is told."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from supervisor.cli.program import main
from supervisor.core import events
from tests.cli.tools import Cli, begin, read_until, run
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.waiting import wait_for


@pytest.mark.parametrize(
    ("words", "order"),
    [
        (["start", "robot"], events.Start("robot")),
        (["stop", "robot"], events.Stop("robot")),
        (["stop", "robot", "--now"], events.Stop("robot", now=True)),
        (["restart", "robot"], events.Restart("robot")),
        (["restart", "--now", "robot", "--new-ports"], events.Restart("robot", now=True, new_ports=True)),
        (["interrupt", "robot"], events.Interrupt("robot")),
        (["kill", "robot"], events.Stop("robot", now=True)),
        (["reset", "robot"], events.Reset("robot")),
        (["signal", "USR1", "robot"], events.SendSignal("robot", 10)),
        (["signal", "10", "robot", "--no-wait"], events.SendSignal("robot", 10)),
    ],
)
def test_each_order_reaches_the_daemon(
    cli: Cli, steering: FakeSteering, words: list[str], order: events.Order
) -> None:
    code, out, err = cli(*words)

    assert (0, "") == (code, err)
    assert out.startswith("robot is ")
    assert [order] == steering.orders


def test_a_refused_order_is_told_and_the_others_are_carried_out(cli: Cli, steering: FakeSteering) -> None:
    steering.refused["robot"] = "robot is disabled in the file"

    code, out, err = cli("start", "--all")

    assert 1 == code
    assert "kernel-supervisor: robot is disabled in the file\n" == err
    assert ["analysis is running", "stats is running"] == sorted(out.splitlines())


def test_orders_for_machines_tell_every_outcome(cli: Cli, steering: FakeSteering) -> None:
    steering.refused["robot"] = "no"

    code, out, _ = cli("start", "--all", "--json")

    found = json.loads(out)
    assert (1, False) == (code, found["ok"])
    assert {"analysis": True, "robot": False, "stats": True} == {r["name"]: r["ok"] for r in found["results"]}


def test_more_kernels_than_connections_are_all_served(tmp_path: Path) -> None:
    crowd = FakeSteering(tmp_path, [f"k{number}" for number in range(150)])
    with FakeDaemon(crowd, tmp_path / "s") as opened:
        code, out, _ = run(tmp_path, "start", "--all", "--socket", str(opened.path))

    assert (0, 150) == (code, len(out.splitlines()))


def test_ctrl_c_stops_the_waiting_and_not_the_order(
    daemon: FakeDaemon, steering: FakeSteering, tmp_path: Path
) -> None:
    steering.slow.add("robot")
    process = begin(tmp_path, "stop", "robot", "stats", "--socket", str(daemon.path))
    read_until(process.stdout, "stats is stopped")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert 1 == process.returncode
    assert "stopped waiting; the order stands for robot" in err
    daemon.call(steering.release.set)
    wait_for(lambda: steering.views["robot"]["phase"] == "stopped")


def test_the_wait_may_be_bounded(cli: Cli, steering: FakeSteering) -> None:
    steering.slow.add("robot")

    code, _, err = cli("stop", "robot", "--timeout", "0.1")

    assert 1 == code
    assert "kernel-supervisor: robot: still stopping after 0.1 s\n" == err


@pytest.mark.parametrize("option", ["--timeout=0.1", "--no-wait"])
def test_an_order_to_a_daemon_that_hangs_is_waited_for_little_longer_than_was_asked_for(
    daemon: FakeDaemon,
    steering: FakeSteering,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
) -> None:
    async def hang(order: events.Order, **_: object) -> dict[str, object]:
        await steering.release.wait()
        return {"ok": True, "message": "at last", "kernel": None}

    monkeypatch.setattr(steering, "order", hang)
    monkeypatch.setattr("supervisor.cli.orders.QUICK_TIMEOUT", 0.1)

    assert 3 == main(["stop", "robot", option, "--socket", str(daemon.path)])
    within = "0.2" if "timeout" in option else "0.1"
    assert f"did not answer within {within} s (is it stopped?)" in capsys.readouterr().err
    daemon.call(steering.release.set)


def test_an_order_that_names_no_kernel_is_wrong_usage_with_or_without_a_daemon(tmp_path: Path) -> None:
    code, _out, err = run(tmp_path, "restart")

    assert 2 == code
    assert "--all" in err
