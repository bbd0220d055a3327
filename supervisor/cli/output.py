"""The verb ``output``: what a kernel process itself wrote to stdout and stderr."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from supervisor.cli.asking import lead_of, one
from supervisor.cli.exits import DONE
from supervisor.control.client import Client, NoDaemon
from supervisor.control.places import Lead


def output(arguments: Namespace) -> int:
    """Print the last lines, and go on as they come."""
    from supervisor.kernel.output import follow, read

    path = _file_of(lead_of(arguments), arguments.name)
    if not arguments.follow:
        sys.stdout.buffer.write(read(path, arguments.lines))
        sys.stdout.buffer.flush()
        return DONE
    try:
        for piece in follow(path, arguments.lines):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        pass  # that is how one stops following
    return DONE


def _file_of(found: Lead, name: str) -> Path:
    """Where it writes: told by the daemon, else where it would be, if it is there."""
    try:
        return Path(one(Client(found.sockets), name)["output_file"])
    except NoDaemon:
        file = found.state_dir / "output" / f"{name}.log"
        if "/" not in name and file.is_file():
            return file
        raise
