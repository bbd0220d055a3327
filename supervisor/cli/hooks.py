"""The verb ``hooks``: a sample event to a hook, run by the daemon as it would run it."""

from __future__ import annotations

from argparse import Namespace

from supervisor.cli.asking import client_of, post
from supervisor.cli.exits import DONE
from supervisor.cli.screen import tell
from supervisor.wording import one_line


def hooks(arguments: Namespace) -> int:
    """Have a hook run, and tell how it went; it may take as long as its time-out."""
    told = post(client_of(arguments), f"/v1/hooks/{arguments.name}/test", timeout=None)
    tell(told, [one_line(str(told["message"]))], as_json=arguments.json)
    return DONE
