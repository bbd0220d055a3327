"""Asking the daemon on behalf of a verb: which daemon, which kernels, and what a refusal means.

Owns the way from arguments to requests that all verbs share; prints nothing.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NoReturn

from supervisor.cli.exits import FAILED, USAGE, Quit
from supervisor.control.client import QUICK_TIMEOUT, Answer, Client, target
from supervisor.control.lookup import Lead, lead

View = dict[str, Any]


def lead_of(arguments: Namespace) -> Lead:
    """Where the daemon is that these arguments mean."""
    return lead(os.environ, socket=arguments.socket, config=arguments.config)


def client_of(arguments: Namespace) -> Client:
    """A client of the daemon that these arguments mean."""
    return Client(found=lead_of(arguments))


def get(client: Client, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask for something that the daemon knows.  Raises Quit where it refuses."""
    return _told(client.ask("GET", target(path, query)))


def post(client: Client, path: str, timeout: float | None = QUICK_TIMEOUT) -> dict[str, Any]:
    """Have something done that needs no more words.  Raises Quit where the daemon refuses."""
    return _told(client.ask("POST", target(path), {}, timeout=timeout))


def _told(answer: Answer) -> dict[str, Any]:
    if answer.is_error:
        refuse(answer)
    return answer.body


def refuse(answer: Answer) -> NoReturn:
    """End with what the daemon found wrong."""
    error = answer.body.get("error") or f"the daemon answered with status {answer.status}"
    raise Quit(FAILED, str(error), str(answer.body.get("hint") or ""))


def chosen(views: Sequence[View], patterns: Sequence[str]) -> list[View]:
    """The kernels that names and shell patterns mean, each once, in the daemon's order.  Raises Quit."""
    known = [str(view["name"]) for view in views]
    wanted: set[str] = set()
    for pattern in patterns:
        found = [name for name in known if name == pattern or fnmatchcase(name, pattern)]
        if not found:
            raise Quit(FAILED, f"no kernel {_is_named(pattern)}", _instead(pattern, known))
        wanted.update(found)
    return [view for view in views if view["name"] in wanted]


def check_choice(arguments: Namespace) -> None:
    """An order names kernels, or all of them; looked at before any daemon is asked.  Raises Quit."""
    if arguments.all and arguments.names:
        raise Quit(USAGE, f"{arguments.verb}: both names and --all are given", "give one of them")
    if not arguments.all and not arguments.names:
        raise Quit(USAGE, f"{arguments.verb}: no kernel is named", "give names, quoted patterns, or --all")


def chosen_by(arguments: Namespace, views: Sequence[View]) -> list[View]:
    """The kernels of an order: named, or all of them.  Raises Quit."""
    return list(views) if arguments.all else chosen(views, arguments.names)


def one(client: Client, name: str) -> View:
    """The view of one kernel; a pattern must mean just one.  Raises Quit."""
    found = chosen(get(client, "/v1/status")["kernels"], [name])
    if len(found) > 1:
        names = ", ".join(str(view["name"]) for view in found)
        raise Quit(FAILED, f"{name!r} means several kernels: {names}", "name one of them")
    return found[0]


def is_pattern(name: str) -> bool:
    """Whether a name may mean several kernels."""
    return any(sign in name for sign in "*?[")


def _is_named(pattern: str) -> str:
    return f"matches {pattern!r}" if is_pattern(pattern) else f"is named {pattern!r}"


def _instead(pattern: str, known: Sequence[str]) -> str:
    from supervisor.settings.mistakes import did_you_mean  # dear, and only a mistake needs it

    if not known:
        return "none is declared"
    shown = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
    return did_you_mean(pattern, known) or f"there are {shown}"
