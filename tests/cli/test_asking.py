"""The command line against a daemon without kernels: each verb as a process."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli import program
from supervisor.cli.program import main
from supervisor.core import events
from supervisor.wording import written
from tests.cli.tools import Done, begin, command, environment, read_until, run
from tests.control.fake_steering import FakeDaemon, FakeSteering, stamp
from tests.waiting import wait_for

DEATH = {
    "at": "2025-01-31T12:00:00Z",
    "generation": 1,
    "pid": 7,
    "cause": "killed",
    "exit_code": None,
    "signal": "SIGKILL",
    "uptime": 44.0,
    "output_tail": ["last words"],
    "detail": "",
}


@pytest.fixture
def steering(tmp_path: Path) -> FakeSteering:
    return FakeSteering(tmp_path)


@pytest.fixture
def daemon(steering: FakeSteering, tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(steering, tmp_path / "s") as opened:
        yield opened


@pytest.fixture
def cli(daemon: FakeDaemon, tmp_path: Path) -> Callable[..., Done]:
    def asking(*words: str, stdin: str = "") -> Done:
        return run(tmp_path, *words, "--socket", str(daemon.path), stdin=stdin)

    return asking


def test_status_is_a_plain_table_in_a_pipe(cli: Callable[..., Done], steering: FakeSteering) -> None:
    steering.views["robot"] |= {"phase": "failed", "pid": None, "reason": "5 deaths", "last_death": DEATH}

    code, out, err = cli("status")

    assert (0, "") == (code, err)
    assert "\x1b" not in out
    lines = out.splitlines()
    titles = ["NAME", "PHASE", "PID", "UPTIME", "RESTARTS", "LAST DEATH", "HEALTH", "CONNECTION FILE"]
    assert titles == re.split("  +", lines[1])
    assert lines[2].split()[:6] == ["analysis", "running", "4242", "3", "h", "0"]
    assert "SIGKILL" in lines[3]
    assert re.search(r" d (\d+ h )?ago", lines[3])
    assert "robot: failed: 5 deaths: when it is mended: kernel-supervisor reset robot" in lines


def test_status_of_a_named_kernel_tells_its_last_words(
    cli: Callable[..., Done], steering: FakeSteering
) -> None:
    steering.views["robot"] |= {"last_death": DEATH | {"output_tail": ["esc \x1b[2J"]}}

    _, out, _ = cli("status", "rob*")

    assert "analysis" not in out.replace(str(steering.tmp), "")
    assert "  | esc \\x1b[2J" in out.splitlines()


def test_status_for_machines_is_what_the_daemon_said(
    cli: Callable[..., Done], steering: FakeSteering
) -> None:
    found = json.loads(cli("status", "stats", "--json").out)

    assert ["stats"] == [view["name"] for view in found["kernels"]]
    assert "instance-1" == found["instance"]


def test_status_tells_what_is_wrong_with_the_daemon(cli: Callable[..., Done], steering: FakeSteering) -> None:
    steering.mistakes = ["kernels.toml: kernels.a.x: no such key"]
    steering.degraded = ["events.jsonl cannot be written"]

    out = cli("status").out

    assert "has mistakes; the settings before it are in force:" in out
    assert "  kernels.toml: kernels.a.x: no such key\n" in out
    assert "degraded: events.jsonl cannot be written\n" in out


def test_status_on_a_terminal_has_colours_and_its_width(daemon: FakeDaemon, tmp_path: Path) -> None:
    text = on_terminal(tmp_path, "status", "--socket", str(daemon.path), TERM="xterm")

    assert "\x1b[32mrunning\x1b[0m" in text
    plain = text.replace("\x1b[32m", "").replace("\x1b[0m", "").replace("\x1b[1m", "").replace("\x1b[2m", "")
    assert all(len(line) <= 80 for line in plain.splitlines())


def test_no_color_is_honoured(daemon: FakeDaemon, tmp_path: Path) -> None:
    text = on_terminal(tmp_path, "status", "--socket", str(daemon.path), TERM="xterm", NO_COLOR="1")

    assert "\x1b" not in text


def on_terminal(home: Path, *words: str, **env: str) -> str:
    """What a command writes to a terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command(*words), env=environment(home, **env), cwd=home, stdout=slave, stderr=slave
    )
    os.close(slave)
    text = b""
    try:
        while piece := os.read(master, 65536):
            text += piece
    except OSError:
        pass  # EIO: the other side is closed
    os.close(master)
    assert 0 == process.wait(30)
    return text.decode()


def test_watch_shows_it_again_until_ctrl_c(
    daemon: FakeDaemon, steering: FakeSteering, tmp_path: Path
) -> None:
    process = begin(tmp_path, "status", "--watch", "--interval", "0.05", "--socket", str(daemon.path))
    read_until(process.stdout, "stats")
    daemon.call(steering.views["stats"].update, {"phase": "backoff"})
    read_until(process.stdout, "backoff")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert 0 == process.returncode


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
    cli: Callable[..., Done],
    steering: FakeSteering,
    words: list[str],
    order: events.Order,
) -> None:
    code, out, err = cli(*words)

    assert (0, "") == (code, err)
    assert out.startswith("robot is ")
    assert [order] == steering.orders


def test_patterns_names_and_all_choose_kernels(cli: Callable[..., Done], steering: FakeSteering) -> None:
    cli("start", "*s", "robot", "rob*")
    assert {"analysis", "stats", "robot"} == {order.kernel for order in steering.orders}
    assert 3 == len(steering.orders)

    cli("stop", "--all")
    assert 6 == len(steering.orders)


def test_a_refused_order_is_told_and_the_others_are_carried_out(
    cli: Callable[..., Done],
    steering: FakeSteering,
) -> None:
    steering.refused["robot"] = "robot is disabled in the file"

    code, out, err = cli("start", "--all")

    assert 1 == code
    assert "kernel-supervisor: robot is disabled in the file\n" == err
    assert ["analysis is running", "stats is running"] == sorted(out.splitlines())


def test_orders_for_machines_tell_every_outcome(cli: Callable[..., Done], steering: FakeSteering) -> None:
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
    daemon: FakeDaemon,
    steering: FakeSteering,
    tmp_path: Path,
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


def test_a_long_order_shows_its_progress_on_a_terminal(
    daemon: FakeDaemon,
    steering: FakeSteering,
    tmp_path: Path,
) -> None:
    steering.slow.add("robot")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command("stop", "--all", "--socket", str(daemon.path)),
        env=environment(tmp_path, TERM="xterm"),
        cwd=tmp_path,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    text = b""
    while b"2 of 3; waiting for robot stopping" not in text:
        text += os.read(master, 65536)
    daemon.call(steering.release.set)

    assert 0 == process.wait(30)
    os.close(master)


def test_the_wait_may_be_bounded(cli: Callable[..., Done], steering: FakeSteering) -> None:
    steering.slow.add("robot")

    code, _, err = cli("stop", "robot", "--timeout", "0.1")

    assert 1 == code
    assert "kernel-supervisor: robot: still stopping after 0.1 s\n" == err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["status", "robto"], 1, "no kernel is named 'robto': did you mean 'robot'?"),
        (["stop", "x*"], 1, "no kernel matches 'x*': there are analysis, robot, stats"),
        (["output", "nothing"], 1, "no kernel is named 'nothing'"),
        (["connection", "*"], 1, "'*' means several kernels: analysis, robot, stats: name one of them"),
        (["logs", "x*"], 1, "no kernel matches 'x*': there are analysis, robot, stats"),
        (["exec", "robto", "1"], 1, "did you mean 'robot'?"),
        (["console", "robto"], 1, "did you mean 'robot'?"),
        (["signal", "TERN", "robot"], 2, "'TERN' is not a signal: did you mean 'SIGTERM'?"),
        (["stop"], 2, "stop: no kernel is named: give names, quoted patterns, or --all"),
        (["stop", "--all", "robot"], 2, "stop: both names and --all are given"),
        (["status", "--jsn"], 2, "status: '--jsn' is not an option of it: did you mean '--json'?"),
        (["statsu"], 2, "'statsu' is not a verb: did you mean 'status'?"),
        (["connection", "robot", "stats"], 2, "connection: 'stats' is not an argument of it"),
        (["logs", "--since", "soon"], 2, "--since: 'soon' is not a time: give a span such as 10m"),
        (["logs", "-n", "-1"], 2, "logs --help"),
        (["status", "--watch", "--interval", "0"], 2, "status --help"),
        (["console", "robot"], 1, "robot is running and has no connection file"),
    ],
)
def test_a_mistake_gets_a_line_that_says_what_to_do(
    cli: Callable[..., Done], words: list[str], code: int, told: str
) -> None:
    done = cli(*words)

    assert code == done.code
    assert told in done.err
    assert "Traceback" not in done.err


def test_reload_and_plan_tell_what_changes(cli: Callable[..., Done], steering: FakeSteering) -> None:
    assert (0, "robot: restart: env\n", "") == cli("reload")
    assert (0, "robot: restart: env\n", "") == cli("plan", "other.toml")
    assert str(steering.tmp / "other.toml") == steering.planned_path


@pytest.mark.parametrize("verb", ["reload", "plan"])
def test_reload_and_plan_tell_what_becomes_of_each_key_of_the_daemon_itself(
    cli: Callable[..., Done], steering: FakeSteering, verb: str
) -> None:
    steering.edited = {"socket": "pending", "on_exit": "apply"}

    _, out, _ = cli(verb)

    own = ["[supervisor] socket: takes effect when the daemon is started anew"]
    own.append("[supervisor] on_exit: " + ("applied" if verb == "reload" else "would be applied"))
    assert [*own, "robot: restart: env"] == out.splitlines()


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """The socket of a daemon that hangs: it listens, and that is all."""
    path = tmp_path / "hanging"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield path


@pytest.mark.parametrize(
    ("words", "patience"),
    [
        (["detach"], ("ending.QUICK_TIMEOUT",)),
        (["shutdown", "--now"], ("ending.QUICK_TIMEOUT",)),
        (["reload"], ("files.READING_TIMEOUT",)),
        (["plan"], ("files.READING_TIMEOUT",)),
    ],
)
def test_a_daemon_that_hangs_is_not_waited_for(
    hanging: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    patience: tuple[str, ...],
) -> None:
    for name in patience:
        monkeypatch.setattr(f"supervisor.cli.{name}", 0.1)

    assert 3 == main([*words, "--socket", str(hanging)])
    told = "accepts connections, but did not answer within 0.1 s (is it stopped?)"
    assert f"the daemon does not answer; tried:\n  {hanging}: {told}" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["detach", "shutdown"])
def test_a_daemon_that_hangs_is_not_told_to_end_whenever_it_goes_on(
    daemon: FakeDaemon,
    steering: FakeSteering,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    monkeypatch.setattr("supervisor.cli.ending.QUICK_TIMEOUT", 0.2)
    hold, held = threading.Event(), threading.Event()

    def hang() -> None:  # as a process that is stopped
        held.set()
        hold.wait(30)

    ended = threading.Thread(target=lambda: daemon.call(hang))
    ended.start()
    assert held.wait(30)

    assert 3 == main([verb, "--socket", str(daemon.path)])
    hold.set()
    ended.join()
    assert "the daemon does not answer; tried:" in capsys.readouterr().err
    assert 0 == main(["status", "--socket", str(daemon.path)])
    assert [] == steering.ended


def test_a_plan_of_a_daemon_that_hangs_is_no_plan_of_a_start(
    hanging: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "k.toml"
    file.write_text('[supervisor]\nsocket = "hanging"\n[kernels.a]\nkernelspec = "python3"\n')
    monkeypatch.setattr("supervisor.cli.files.READING_TIMEOUT", 0.1)

    assert 3 == main(["plan", "--config", str(file)])
    assert "" == capsys.readouterr().out


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


@pytest.mark.parametrize("verb", ["reload", "plan"])
def test_a_rejected_configuration_is_78_with_every_mistake(
    cli: Callable[..., Done],
    steering: FakeSteering,
    verb: str,
) -> None:
    steering.mistakes = ["k.toml: a: x", "k.toml: b: y"]

    assert (78, "", "k.toml: a: x\nk.toml: b: y\n") == cli(verb)
    assert (78, False) == ((done := cli(verb, "--json")).code, json.loads(done.out)["accepted"])


def test_connection_prints_the_path_or_the_content_without_the_key(cli: Callable[..., Done]) -> None:
    assert cli("connection", "robot").out.endswith("/kernel-robot.json\n")
    assert "key" not in json.loads(cli("connection", "robot", "--json").out)["content"]


def test_logs_are_lines_for_people_and_json_for_machines(
    cli: Callable[..., Done],
    daemon: FakeDaemon,
    steering: FakeSteering,
) -> None:
    daemon.run(steering.tell(event="kernel.died", kernel="robot", signal="SIGKILL", output_tail=["bye"]))
    daemon.run(steering.tell(event="kernel.ready", kernel="stats"))

    out = cli("logs").out
    assert "kernel.died" in out
    assert "| bye" in out
    assert ["stats"] == [json.loads(line)["kernel"] for line in cli("logs", "s*", "--json").out.splitlines()]
    assert 1 == len(cli("logs", "--event", "kernel.ready", "--since", "10m").out.splitlines())
    assert 1 == len(cli("logs", "-n", "1").out.splitlines())
    assert "" == cli("logs", "-n", "0").out


def test_logs_follow_across_the_daemons_end_and_mark_it(tmp_path: Path) -> None:
    first, second = FakeSteering(tmp_path), FakeSteering(tmp_path)
    second.instance = "instance-2"
    with FakeDaemon(first, tmp_path / "s") as one:
        one.run(first.tell(event="kernel.ready", kernel="robot", number=1))
        process = begin(tmp_path, "logs", "-f", "--json", "--socket", str(tmp_path / "s"))
        read_until(process.stdout, '"number": 1')
        one.run(first.tell(event="kernel.ready", kernel="robot", number=2))
        read_until(process.stdout, '"number": 2')
    second.lines = [*first.lines, {"timestamp": stamp(), "event": "kernel.ready", "number": 3}]
    with FakeDaemon(second, tmp_path / "s"):
        following = read_until(process.stdout, '"number": 3')
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)

    assert 0 == process.returncode
    assert 1 == len(following.splitlines()), "what was shown is not shown again"
    assert "another daemon answers" in err


def told(seconds: float, **fields: Any) -> dict[str, Any]:
    """An event so many seconds from now."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return {"timestamp": written(at), "level": "info", "event": "kernel.ready", "kernel": "robot", **fields}


def test_logs_follow_tell_what_happened_between_two_daemons_though_nothing_was_shown_before(
    tmp_path: Path,
) -> None:
    first, second = FakeSteering(tmp_path), FakeSteering(tmp_path)
    first.lines = [told(-60, number=0)]
    with FakeDaemon(first, tmp_path / "s"):
        process = begin(tmp_path, "logs", "-f", "-n", "0", "--json", "--socket", str(tmp_path / "s"))
        wait_for(lambda: first.followers == 1)
    second.lines = [*first.lines, told(0, number=1), told(0.1, number=2)]
    with FakeDaemon(second, tmp_path / "s"):
        following = read_until(process.stdout, '"number": 2')
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)

    assert [1, 2] == [json.loads(line)["number"] for line in following.splitlines()]


def test_logs_follow_go_on_before_a_gap_and_not_after_it(tmp_path: Path) -> None:
    first, second = FakeSteering(tmp_path), FakeSteering(tmp_path)
    shown, missed, later = (told(number * 0.1, number=number) for number in range(3))
    gap = told(0.15, event="stream.gap", kernel=None, reason="nothing was read")
    first.lines = [shown, gap]
    with FakeDaemon(first, tmp_path / "s"):
        process = begin(tmp_path, "logs", "-f", "--json", "--socket", str(tmp_path / "s"))
        read_until(process.stdout, "stream.gap")
    second.lines = [shown, missed, later]
    with FakeDaemon(second, tmp_path / "s"):
        following = read_until(process.stdout, '"number": 2')
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)

    assert [1, 2] == [json.loads(line)["number"] for line in following.splitlines()]


def test_logs_of_a_kernel_that_is_not_declared_any_more_are_told_with_a_hint(
    cli: Callable[..., Done], steering: FakeSteering
) -> None:
    removed = told(-1, kernel="robto", event="kernel.removed")
    steering.lines = [removed, told(0)]

    code, out, err = cli("logs", "robto", "--json")

    assert (0, removed) == (code, json.loads(out))
    assert "kernel-supervisor: no kernel is named 'robto' now: did you mean 'robot'?\n" == err


def test_logs_of_a_name_that_nobody_ever_had_fail(cli: Callable[..., Done], steering: FakeSteering) -> None:
    steering.lines = []

    assert (1, "") == cli("logs", "robto")[:2]


def test_logs_follow_a_pattern_to_kernels_that_are_declared_later(
    daemon: FakeDaemon, steering: FakeSteering, tmp_path: Path
) -> None:
    process = begin(tmp_path, "logs", "-f", "new*", "--json", "--socket", str(daemon.path))
    read_until(process.stderr, "no kernel matches 'new*' now")
    for kernel in ("robot", "newest"):
        daemon.run(steering.tell(event="kernel.ready", kernel=kernel))
    following = read_until(process.stdout, "newest")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert ["newest"] == [json.loads(line)["kernel"] for line in following.splitlines()]


def test_logs_follow_a_pattern_from_the_last_events_that_it_matches(
    daemon: FakeDaemon, steering: FakeSteering, tmp_path: Path
) -> None:
    old = [told(-9, number=0), told(-8, number=1), told(-7, kernel="stats"), told(-6, number=2)]
    steering.lines = [*old, told(-5, kernel="analysis")]
    words = ("logs", "-f", "rob*", "-n", "2", "--json", "--socket", str(daemon.path))
    process = begin(tmp_path, *words)
    before = read_until(process.stdout, '"number": 2')
    daemon.run(steering.tell(event="kernel.died", kernel="robot", number=3))
    after = read_until(process.stdout, '"number": 3')
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert [1, 2, 3] == [json.loads(line)["number"] for line in (before + after).splitlines()]


def left_by_a_daemon(home: Path, *lines: dict[str, Any]) -> None:
    (home / "state").mkdir()
    (home / "state/events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (home / "k.toml").write_text('[supervisor]\nstate_dir = "state"\n')


def test_logs_without_a_daemon_are_read_from_its_file(tmp_path: Path) -> None:
    line = told(0)
    left_by_a_daemon(tmp_path, line)

    code, out, err = run(tmp_path, "logs", "--json", "robot", "--config", "k.toml")

    assert (0, line) == (code, json.loads(out))
    assert "no daemon answers: this is what it left" in err


def test_logs_without_a_daemon_may_be_chosen_by_a_pattern(tmp_path: Path) -> None:
    lines = [told(-2, number=0), told(-1, number=1), told(0, kernel="stats")]
    left_by_a_daemon(tmp_path, *lines)

    code, out, _ = run(tmp_path, "logs", "--json", "rob*", "-n", "1", "--config", "k.toml")

    assert (0, lines[1]) == (code, json.loads(out))


@pytest.mark.parametrize(
    ("state_dir", "why"),
    [
        ("state", "events.jsonl: cannot be read: Is a directory"),
        ("s" * 300, "events.jsonl: cannot be read: File name too long"),
        ("nowhere", "events.jsonl: there is no such file of an earlier daemon"),
    ],
)
def test_a_file_of_events_that_cannot_be_read_is_told_among_what_was_tried(
    tmp_path: Path, state_dir: str, why: str
) -> None:
    (tmp_path / "state/events.jsonl").mkdir(parents=True)
    (tmp_path / "k.toml").write_text(f'[supervisor]\nstate_dir = "{state_dir}"\n')

    for words in (["logs"], ["logs", "-f"], ["logs", "-f", "rob*"]):
        code, out, err = run(tmp_path, *words, "--config", "k.toml")

        assert (3, "") == (code, out)
        assert "no daemon answers; tried:" in err
        assert 1 == err.count(why)
        assert "Traceback" not in err


class Stuck(FakeSteering):
    """Tells the past as far as a daemon does that hangs in the middle of it."""

    async def events(self, **_: Any) -> AsyncIterator[dict[str, Any]]:
        yield self.lines[0]
        await asyncio.Event().wait()


def test_logs_of_a_daemon_that_hangs_end_with_what_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("supervisor.cli.logs.QUICK_TIMEOUT", 0.5)
    stuck = Stuck(tmp_path)
    stuck.lines = [told(0)]
    with FakeDaemon(stuck, tmp_path / "s"):
        assert 3 == program.main(["logs", "--json", "--socket", str(tmp_path / "s")])

    out, err = capsys.readouterr()
    assert stuck.lines == [json.loads(out)]
    assert "accepts connections, but did not answer within 0.5 s (is it stopped?)" in err


@pytest.mark.parametrize("name", ["robot", "r" * 300])
def test_output_of_a_kernel_without_a_daemon_and_without_a_file_is_told(tmp_path: Path, name: str) -> None:
    code, out, err = run(tmp_path, "output", name)

    assert (3, "") == (code, out)
    assert "no daemon answers; tried:" in err


def test_output_that_cannot_be_read_is_told(cli: Callable[..., Done], steering: FakeSteering) -> None:
    (steering.tmp / "output" / "robot.log").mkdir(parents=True)

    for words in (["output", "robot"], ["output", "-f", "robot"]):
        code, out, err = cli(*words)

        assert (1, "") == (code, out)
        assert err.endswith("robot.log: cannot be read: not a regular file\n")


def test_output_is_what_the_kernel_wrote(cli: Callable[..., Done], steering: FakeSteering) -> None:
    file = steering.tmp / "output" / "robot.log"
    file.parent.mkdir()
    file.write_text("one\ntwo\nthree\n")

    assert "one\ntwo\nthree\n" == cli("output", "robot").out
    assert "three\n" == cli("output", "robot", "-n", "1").out


def test_output_follows(daemon: FakeDaemon, steering: FakeSteering, tmp_path: Path) -> None:
    file = tmp_path / "output" / "robot.log"
    file.parent.mkdir()
    file.write_text("one\n")
    process = begin(tmp_path, "output", "-f", "robot", "--socket", str(daemon.path))
    read_until(process.stdout, "one")
    with file.open("a") as written:
        written.write("two\n")
    read_until(process.stdout, "two")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert 0 == process.returncode


def test_names_for_completion_come_from_the_daemon_and_no_daemon_is_no_error(
    cli: Callable[..., Done], tmp_path: Path
) -> None:
    assert "analysis\nrobot\nstats\n" == cli("__names").out
    assert (0, "", "") == run(tmp_path, "__names", "--socket", "/nowhere")


def test_detach_and_shutdown_may_be_left_alone(cli: Callable[..., Done], steering: FakeSteering) -> None:
    assert (0, "the daemon is on its way out\n", "") == cli("detach", "--no-wait")
    assert 0 == cli("shutdown", "--now", "--no-wait").code
    assert ["detach", "shutdown now"] == steering.ended


def test_shutdown_waits_until_the_daemon_is_gone(tmp_path: Path) -> None:
    script = (
        "import sys, asyncio, pathlib\n"
        "from tests.control.fake_steering import FakeSteering\n"
        "from supervisor.control.api import Door\n"
        "async def main():\n"
        "    steering = FakeSteering(pathlib.Path(sys.argv[1]))\n"
        "    door = Door(steering, pathlib.Path(sys.argv[1]) / 's')\n"
        "    await door.start(); print('open', flush=True)\n"
        "    while not steering.ended: await asyncio.sleep(0.01)\n"
        "    await door.close()\n"
        "    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)\n"
        "asyncio.run(main())\n"
    )
    other = subprocess.Popen(
        [*command()[:1], "-c", script, str(tmp_path)],
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    read_until(other.stdout, "open")
    process = begin(tmp_path, "shutdown", "--socket", str(tmp_path / "s"))
    wait_for(lambda: not (tmp_path / "s").exists())
    assert process.poll() is None, "the socket has gone, the daemon has not"
    other.communicate("\n", timeout=30)
    out, _ = process.communicate(timeout=30)

    assert (0, "all kernels are stopped, the daemon has exited\n") == (process.returncode, out)
