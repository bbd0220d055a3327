"""The verb logs: the past, what follows, across daemons and without one."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli import program
from supervisor.control.requests import EventsRequest
from supervisor.wording import written
from tests.cli.tools import Cli, begin, read_until, run
from tests.control.fake_steering import FakeDaemon, FakeSteering, sequence


def test_logs_are_lines_for_people_and_json_for_machines(
    cli: Cli, daemon: FakeDaemon, steering: FakeSteering
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
    second.lines = [*first.lines, told(0, number=3)]
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
    line = {"timestamp": written(at), "seq": sequence(at), "level": "info"}
    return {**line, "event": "kernel.ready", "kernel": "robot", **fields}


def test_logs_of_a_kernel_that_is_not_declared_any_more_are_told_with_a_hint(
    cli: Cli, steering: FakeSteering
) -> None:
    removed = told(-1, kernel="robto", event="kernel.removed")
    steering.lines = [removed, told(0)]

    code, out, err = cli("logs", "robto", "--json")

    assert (0, removed) == (code, json.loads(out))
    assert "kernel-supervisor: no kernel is named 'robto' now: did you mean 'robot'?\n" == err


def test_logs_of_a_name_that_nobody_ever_had_fail(cli: Cli, steering: FakeSteering) -> None:
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
        ("state", "events.jsonl: cannot be read: it is a directory"),
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

    async def events(self, _: EventsRequest) -> AsyncIterator[list[dict[str, Any]]]:
        yield self.lines[:1]
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


def test_logs_of_a_socket_that_was_named_are_never_what_another_daemon_left(tmp_path: Path) -> None:
    file = tmp_path / ".local/state/kernel-supervisor/events.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(told(0)) + "\n")

    assert (3, "") == run(tmp_path, "logs", "--socket", "nowhere")[:2]
    assert 0 == run(tmp_path, "logs").code
