"""The verb ``metrics``: Prometheus text, such as for node_exporter's textfile collector."""

from __future__ import annotations

import sys
from argparse import Namespace

from supervisor.cli.asking import client_of, get
from supervisor.cli.exits import DONE, FAILED, Quit
from supervisor.cli.screen import say_json


def metrics(arguments: Namespace) -> int:
    """Write the metrics of this moment."""
    try:
        from supervisor.page.metrics import exposition
    except ModuleNotFoundError as missing:
        raise Quit(
            FAILED, f"{missing.name} is not installed", "pip install prometheus_client into this environment"
        ) from None
    client = client_of(arguments)
    found = [get(client, f"/v1/{path}") for path in ("status", "usage", "counts")]
    if arguments.json:
        say_json(dict(zip(("status", "usage", "counts"), found, strict=True)))
    else:
        status, usage, counts = found
        sys.stdout.write(exposition(status, usage["usage"], counts))
    return DONE
