"""The verb ``output``: what a kernel process itself wrote to stdout and stderr."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

from supervisor.cli.asking import lead_of, one
from supervisor.cli.exits import DONE, FAILED, Quit
from supervisor.cli.screen import Shown
from supervisor.control.client import Client, NoDaemon, OtherDaemon
from supervisor.control.lookup import Lead


def output(arguments: Namespace) -> int:
    """Print the last lines, and go on as they come."""
    path = _file_of(lead_of(arguments), arguments.name)
    try:
        _print(path, arguments)
    except KeyboardInterrupt:
        pass  # that is how one stops following
    except BrokenPipeError:
        raise  # nobody reads; not the file's fault
    except OSError as error:
        raise Quit(FAILED, f"{path}: cannot be read: {error.strerror or error}") from None
    return DONE


def _print(path: Path, arguments: Namespace) -> None:
    from supervisor.output import file as files

    lines, follow = arguments.lines, arguments.follow
    is_raw, shown = arguments.raw or not sys.stdout.isatty(), Shown()
    for piece in files.follow(path, lines) if follow else [files.read(path, lines)]:
        if is_raw:
            sys.stdout.buffer.write(piece)
        else:
            sys.stdout.write(shown.of(piece, ends=not follow))
        sys.stdout.flush()


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
