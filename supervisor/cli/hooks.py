"""The verb ``hooks``: a sample event to a hook, run by the daemon as it would run it."""

from __future__ import annotations

from argparse import Namespace

from supervisor.cli.asking import client_of, refuse
from supervisor.cli.exits import DONE
from supervisor.cli.screen import say, say_json
from supervisor.control.client import target
from supervisor.wording import one_line


def hooks(arguments: Namespace) -> int:
    """Have a hook run, and tell how it went; it may take as long as its time-out."""
    path = target(f"/v1/hooks/{arguments.name}/test")
    answer = client_of(arguments).ask("POST", path, {}, timeout=None)
    if answer.is_error:
        refuse(answer)
    if arguments.json:
        say_json(answer.body)
    else:
        say(one_line(str(answer.body["message"])))
    return DONE
