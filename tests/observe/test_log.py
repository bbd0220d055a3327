"""The structured log: form, level, secrets, and where it goes."""

import io
import json
import logging
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from supervisor.observe import redaction
from supervisor.observe.journald import Journal
from supervisor.observe.log import EventLog, Log, configure
from supervisor.observe.redaction import redact

DIED: dict[str, object] = {
    "pid": 4242,
    "generation": 4,
    "kernel": "analysis",
    "event": "kernel.died",
    "level": "warning",
    "timestamp": "2026-01-02T03:04:05.678Z",
    "signal": "SIGKILL",
    "cause": "killed",
    "output_tail": ["one", "two"],
}

Logs = Callable[..., tuple[Log, io.StringIO]]


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Logs]:
    monkeypatch.setattr(redaction, "_secrets", {})
    level = logging.getLogger().level
    made: list[Log] = []

    def make(*arguments: Any, **keywords: Any) -> tuple[Log, io.StringIO]:
        stream = io.StringIO()
        log = configure(*arguments, stream=stream, **keywords)
        made.append(log)
        return log, stream

    yield make
    for log in made:
        log.close()
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def lines(log: Log, stream: io.StringIO) -> list[dict[str, Any]]:
    assert log.flush(30)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_a_line_of_json_with_the_leading_fields_first(logs: Logs) -> None:
    log, stream = logs()

    EventLog()(DIED)

    assert log.flush(30)
    assert stream.getvalue().startswith(
        '{"timestamp":"2026-01-02T03:04:05.678Z","level":"warning","event":"kernel.died","kernel":"analysis",'
    )
    assert [DIED] == lines(log, stream)


def test_a_message_of_our_own_gets_time_and_level(logs: Logs) -> None:
    log, stream = logs()

    structlog.get_logger().error("disk.filled", path=Path("/x"))

    (line,) = lines(log, stream)
    assert ("error", "disk.filled", "/x") == (line["level"], line["event"], line["path"])
    assert line["timestamp"].endswith("Z")


def test_the_level_is_changed_live(logs: Logs) -> None:
    log, stream = logs("warning")
    tell = structlog.get_logger()

    tell.info("one")
    tell.warning("two")
    log.set_level("debug")
    tell.debug("three")
    log.set_level("error")
    tell.warning("four")

    assert ["two", "three"] == [line["event"] for line in lines(log, stream)]
    with pytest.raises(ValueError, match="'loud' is not one of"):
        log.set_level("loud")


def test_no_secret_gets_into_a_line(logs: Logs) -> None:
    secret = "0f" * 32
    redact(secret)
    log, stream = logs()

    EventLog()({**DIED, "key": secret, "env": {"A": "hidden-value"}, "output_tail": [f"key={secret}"]})
    logging.getLogger("tornado").error("the key is %s", secret)

    assert log.flush(30)
    assert 2 == len(stream.getvalue().splitlines())
    assert secret not in stream.getvalue()
    assert "hidden-value" not in stream.getvalue()


def test_libraries_log_the_same_way_from_warning_up(logs: Logs) -> None:
    log, stream = logs("debug")
    tornado = logging.getLogger("tornado.access")

    tornado.info("200 GET")
    tornado.warning("404 %s", "GET")
    try:
        raise KeyError("gone")
    except KeyError:
        tornado.exception("500")
    log._handler.handle(logging.LogRecord("x", 30, "", 0, "%d", ("not a number",), None))

    first, second = lines(log, stream)
    assert ("library.reported", "warning", "tornado.access", "404 GET") == tuple(
        first[name] for name in ("event", "level", "logger", "message")
    )
    assert "error" == second["level"]
    assert second["traceback"].endswith("KeyError: 'gone'")


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event": None, "level": 7},
        {"event": "x", "self": 1, "exc_info": True, "logger": object(), "level": "critical"},
        {1: 2, "event": "100%s %d", "nested": {"a": {1, 2}}},
        {"event": "\udc80", "x": float("inf")},
    ],
)
@pytest.mark.parametrize("form", ["json", "console"])
def test_an_odd_event_is_logged_all_the_same(logs: Logs, form: str, event: dict[Any, object]) -> None:
    log, stream = logs("info", form)

    EventLog()(event)

    assert log.flush(30)
    assert 1 == len(stream.getvalue().splitlines())


def test_on_a_terminal_the_log_is_readable_and_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        log = configure(stream=terminal)
        EventLog()({**DIED, "restarts": 3})
        assert log.flush(30)
        shown = os.read(master, 4096).decode()
        log.close()
    os.close(master)
    structlog.reset_defaults()

    first, *below = shown.splitlines()
    assert "\x1b[33mwarning kernel.died" in first
    assert "analysis died: killed by SIGKILL (run 4, pid 4242)" in first
    assert "restarts=3" in first
    assert ["| one" in below[0], "| two" in below[1]] == [True, True]


def test_auto_in_a_pipe_is_json_and_console_has_no_colour_there(logs: Logs) -> None:
    log, stream = logs("info", "console")

    EventLog()(DIED)

    assert log.flush(30)
    assert "analysis died: killed by SIGKILL" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_the_journal_is_used_instead_of_lines_and_lines_if_it_fails(logs: Logs, tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(path)
        journald.settimeout(30)
        log, stream = logs(journal=Journal(path))

        EventLog()(DIED)
        logging.getLogger("asyncio").warning("slow")

        assert b"KERNEL=analysis\n" in journald.recv(65536)
        assert b"MESSAGE=asyncio: slow\n" in journald.recv(65536)
        assert [] == lines(log, stream)
    Path(path).unlink()

    EventLog()(DIED)

    assert [DIED] == lines(log, stream)


def test_an_explicit_form_is_obeyed_under_the_journal(logs: Logs, tmp_path: Path) -> None:
    log, stream = logs("info", "json", journal=Journal(str(tmp_path / "none")))

    EventLog()(DIED)

    assert log.journal is None
    assert [DIED] == lines(log, stream)


PROGRAM = """
import sys
from supervisor.observe.log import EventLog, configure
log = configure()
for number in range(5000):
    EventLog()({"level": "info", "event": "kernel.ready", "kernel": "analysis", "number": number})
print("alive", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "shell", ["exec {} >&-", "exec {} >/dev/full", "exec {} | true", "exec {} | tail -1"]
)
def test_a_broken_standard_output_ends_nobody(shell: str) -> None:
    command = shell.format(f"\"{sys.executable}\" -c '{PROGRAM}'")

    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=60, check=False
    )

    assert (0, b"alive\n") == (ended.returncode, ended.stderr)


def test_a_pipe_that_nobody_reads_does_not_hold_up_the_exit() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert 0 == program.wait(60)
        assert program.stderr is not None
        assert b"alive\n" == program.stderr.read()


def test_rich_is_not_imported_even_where_it_is_installed(tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise SystemExit('rich was imported')")
    check = "import sys, supervisor.observe.log; print('rich' in sys.modules, flush=True); import rich"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    ended = subprocess.run([sys.executable, "-c", check], env=environ, capture_output=True, check=False)

    # The last statement shows that the program itself still can.
    assert (b"False\n", b"rich was imported\n") == (ended.stdout, ended.stderr)
