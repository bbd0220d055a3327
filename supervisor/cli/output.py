"""The verb ``output``: what a kernel process itself wrote to stdout and stderr."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

from supervisor.cli.asking import lead_of, one, refuse
from supervisor.cli.exits import DONE, FAILED, Quit
from supervisor.cli.screen import Shown
from supervisor.control.client import QUICK_TIMEOUT, Client, NoDaemon, OtherDaemon, target
from supervisor.control.follow import Refused, open_stream
from supervisor.control.lookup import Lead

# As many the daemon tells at most.
MOST_LINES = 10_000


def output(arguments: Namespace) -> int:
    """Print the last lines, and go on as they come."""
    found = lead_of(arguments)
    path = _file_of(found, arguments.name)
    try:
        _print(_read(path, arguments), arguments)
    except KeyboardInterrupt:
        pass  # that is how one stops following
    except BrokenPipeError:
        raise  # nobody reads; not the file's fault
    except PermissionError:
        # Another account's daemon, of which we may be an operator.
        _print(_ask(Client(found=found), arguments), arguments)
    except OSError as error:
        raise Quit(FAILED, f"{path}: cannot be read: {error.strerror or error}") from None
    return DONE


def _print(pieces: Iterable[bytes], arguments: Namespace) -> None:
    is_raw, shown = arguments.raw or not sys.stdout.isatty(), Shown()
    for piece in pieces:
        if is_raw:
            sys.stdout.buffer.write(piece)
        else:
            sys.stdout.write(shown.of(piece, ends=not arguments.follow))
        sys.stdout.flush()


def _read(path: Path, arguments: Namespace) -> Iterable[bytes]:
    from supervisor.output import file as files

    lines = arguments.lines
    return files.follow(path, lines) if arguments.follow else [files.read(path, lines)]


def _ask(client: Client, arguments: Namespace) -> Iterator[bytes]:
    """What the daemon tells of it."""
    name = one(client, arguments.name)["name"]
    last = MOST_LINES if arguments.lines is None else min(arguments.lines, MOST_LINES)
    query = {"last": last, "follow": arguments.follow}
    try:
        connection = open_stream(client, target(f"/v1/kernels/{name}/output", query))
    except Refused as refused:
        refuse(refused.answer)
    with connection:
        for line in connection.lines(None if arguments.follow else QUICK_TIMEOUT):
            yield str(line.get("text", "")).encode()


def _file_of(found: Lead, name: str) -> Path:
    """Where it writes: told by the daemon, else where it would be, if it is there."""
    try:
        return Path(one(Client(found=found), name)["output_file"])
    except OtherDaemon:
        raise  # what is there is the other one's
    except NoDaemon:
        # Only where a state directory is meant: at a socket that was named, whose file would it be?
        file = found.state_dir / "output" / f"{name}.log" if found.state_dir and "/" not in name else None
        # Not is_file(), which raises where the directory may not be entered.
        if file is None or not os.path.isfile(file):  # noqa: PTH113
            raise
        return file
