"""The structured log: structlog, configured for the daemon.

Owns the form of the log, its level and where it goes: JSON lines, lines for a
terminal, or the journal.  Never decides what is logged, and never raises or
blocks: see ``line_writer`` for what a broken standard output costs.
For the daemon only; a program that embeds the supervisor gets stdlib logging.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

from supervisor.observe.console import render
from supervisor.observe.event_line import dump, lost
from supervisor.observe.journald import Journal
from supervisor.observe.line_writer import LineWriter
from supervisor.observe.redaction import clean
from supervisor.wording import timestamp

# structlog imports rich wherever it is installed (50 ms, 12 MB), for tracebacks that we never
# render with it: a None in sys.modules is how the import system is told "not there".
_absent = "rich" not in sys.modules
if _absent:
    sys.modules["rich"] = None  # type: ignore[assignment]
try:
    import structlog
    from structlog.typing import EventDict, WrappedLogger
finally:
    if _absent:
        del sys.modules["rich"]

Format = Literal["auto", "json", "console"]
LEVELS: Mapping[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

# Code of the user, and stacks of it, are in events.jsonl alone, which nobody else may read.
_NOT_KEYWORDS = frozenset({"level", "event", "self", "exc_info", "executing", "stacks"})


class Log:
    """The log as configured by ``configure``, with what libraries log through the standard library."""

    def __init__(self, level: str, writer: LineWriter, journal: Journal | None) -> None:
        self.set_level(level)
        self._handler = _FromStdlib()
        logging.getLogger().addHandler(self._handler)
        logging.getLogger().setLevel(logging.WARNING)
        self.writer = writer
        self.journal = journal

    def set_level(self, level: str) -> None:
        """Log this level and what is above it from now on; ValueError for an unknown one."""
        if level not in LEVELS:
            raise ValueError(f"level: {level!r} is not one of {', '.join(LEVELS)}")
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]))

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait until the lines so far are written; tell whether they were within ``timeout`` seconds."""
        return self.writer.flush(timeout)

    def close(self, timeout: float = 1.0) -> None:
        """Write what is queued, for ``timeout`` seconds at most; nothing is logged afterwards."""
        atexit.unregister(self.close)
        logging.getLogger().removeHandler(self._handler)
        self.writer.close(timeout)
        if self.journal is not None:
            self.journal.close()


class EventLog:
    """The observer that logs each event."""

    def __call__(self, event: Mapping[str, object]) -> None:
        """Log the event at its own level; its ``timestamp`` is kept."""
        level = event.get("level")
        fields = {str(name): value for name, value in event.items() if name not in _NOT_KEYWORDS}
        method = level if isinstance(level, str) and level in LEVELS else "info"
        getattr(structlog.get_logger(), method)(str(event.get("event", "")), **fields)


def configure(
    level: str = "info",
    log_format: Format = "auto",
    stream: TextIO | None = None,
    *,
    journal: Journal | None = None,
) -> Log:
    """Configure structlog and the standard library's logging; return what controls them.

    ``stream`` is standard output by default.  ``auto`` means the journal where
    one is given, else the console form on a terminal and JSON elsewhere; an
    explicit format is obeyed under the journal, too.
    """
    out = sys.stdout if stream is None else stream
    terminal = _is_terminal(out)
    console = log_format == "console" or (log_format == "auto" and terminal)
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def to_line(plain: Mapping[str, object]) -> bytes:
        if console:
            return render(plain, colour=colour).encode("utf-8", "backslashreplace") + b"\n"
        return dump(plain)

    def marker(count: int) -> bytes:
        return to_line(lost("log.dropped", count))

    def deliver(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
        plain = clean(event)
        if log.journal is not None and log.journal.send(plain):
            raise structlog.DropEvent
        return to_line(plain)

    log = Log(level, LineWriter(out, marker), journal if log_format == "auto" else None)
    sink = _Sink(log.writer)
    structlog.configure(
        processors=[_stamp, deliver],
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )
    atexit.register(log.close)
    return log


def _stamp(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event.setdefault("timestamp", timestamp())
    event["level"] = "error" if method in ("critical", "exception") else method
    if "exc_info" in event:
        event["traceback"] = _traceback(event.pop("exc_info"))
    return event


def _traceback(exc_info: object) -> str | None:
    if exc_info is True:
        exc_info = sys.exc_info()
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    if isinstance(exc_info, tuple) and exc_info[0] is not None:
        return logging.Formatter().formatException(exc_info)
    return None


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):  # closed
        return False


class _Sink:
    """Where structlog's loggers end: every level goes to the writer."""

    def __init__(self, writer: LineWriter) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.exception = writer.write


class _FromStdlib(logging.Handler):
    """Logs a record of the standard library's logging as the event ``library.reported``."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields: dict[str, object] = {"logger": record.name, "message": record.getMessage()}
            if record.exc_info and record.exc_info[0] is not None:
                fields["exc_info"] = record.exc_info
            level = "error" if record.levelno >= logging.ERROR else "warning"
            getattr(structlog.get_logger(), level)("library.reported", **fields)
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Do nothing: a library's malformed message is no reason to write to a terminal."""
