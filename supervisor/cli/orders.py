"""Orders to kernels: given to all of them at once, each outcome told as it comes.

Owns the waiting.  Ctrl-C ends the waiting and never takes an order back.
"""

from __future__ import annotations

import math
import select
import sys
import time
from argparse import Namespace
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from supervisor.cli import words
from supervisor.cli.asking import View, check_choice, chosen_by, client_of, get
from supervisor.cli.exits import DONE, FAILED, USAGE
from supervisor.cli.screen import Transient, complain, say, say_json
from supervisor.control.client import (
    QUICK_TIMEOUT,
    Answer,
    Broken,
    Client,
    Connection,
    NoDaemon,
    Unresponsive,
    target,
)
from supervisor.wording import one_line

_AT_ONCE = 64
"""Connections open at the same time, well below what the daemon admits."""
_LOOK_INTERVAL = 0.5
_TAIL_LINES = 5

Result = dict[str, Any]


def give(arguments: Namespace) -> int:
    """Give an order to each kernel, and tell how it went."""
    check_choice(arguments)
    client = client_of(arguments)
    names = [str(view["name"]) for view in chosen_by(arguments, get(client, "/v1/status")["kernels"])]
    waiting = _Waiting(client, arguments, names)
    try:
        results = waiting.run()
    except KeyboardInterrupt:
        return _leave(waiting, arguments)
    if arguments.json:
        say_json({"ok": all(result["ok"] for result in results), "results": results})
    elif not names:
        say("no kernel is declared")
    return waiting.code


def fields_of(arguments: Namespace) -> dict[str, Any]:
    """The fields of the request that these arguments make."""
    fields: dict[str, Any] = {"wait": not arguments.no_wait}
    for field in ("now", "new_ports", "signal", "timeout"):
        if value := getattr(arguments, field, None):
            fields[field] = value
    return fields


def patience_of(arguments: Namespace) -> float | None:
    """Seconds within which a daemon that is well answers the order; ``None`` where no bound was asked for."""
    if arguments.no_wait:
        return QUICK_TIMEOUT
    return arguments.timeout + QUICK_TIMEOUT if arguments.timeout else None


class _Sent(NamedTuple):
    """An order that was given and not answered yet; the deadline is the monotonic instant of its end."""

    name: str
    connection: Connection
    deadline: float


class _Waiting:
    """The orders that are under way, and the results of those that are not any more."""

    def __init__(self, client: Client, arguments: Namespace, names: Sequence[str]) -> None:
        self._client = client
        self._arguments = arguments
        self._to_send = deque(names)
        self._open: dict[int, _Sent] = {}
        self._patience = patience_of(arguments)
        self._transient = Transient()
        self._looked_at = time.monotonic()
        self.results: list[Result] = []
        self._was_misused = False

    @property
    def code(self) -> int:
        """The exit code that the results make."""
        if self._was_misused:
            return USAGE
        return DONE if all(result["ok"] for result in self.results) else FAILED

    @property
    def unsettled(self) -> list[str]:
        """The kernels of which nothing is known yet."""
        return [*(sent.name for sent in self._open.values()), *self._to_send]

    def run(self) -> list[Result]:
        """Give all orders, and wait for their outcomes."""
        while self._to_send or self._open:
            self._send()
            ready, _, _ = select.select(list(self._open), [], [], _LOOK_INTERVAL)
            for descriptor in ready:
                self._settle(descriptor)
            self._give_up()
            self._look()
        self._transient.clear()
        return self.results

    def close(self) -> list[str]:
        """Give all orders that were not given yet, wait for none; returns the unsettled kernels."""
        unsettled = self.unsettled
        while self._to_send:
            self._send(at_most=None)
        self._hang_up()
        return unsettled

    def _hang_up(self) -> None:
        for sent in self._open.values():
            sent.connection.close()
        self._open.clear()
        self._transient.clear()

    def _send(self, at_most: int | None = _AT_ONCE) -> None:
        while self._to_send and (at_most is None or len(self._open) < at_most):
            connection = self._client.connect()
            name = self._to_send.popleft()
            path = f"/v1/kernels/{name}/{self._arguments.verb}"
            connection.send("POST", target(path), fields_of(self._arguments))
            deadline = time.monotonic() + (math.inf if self._patience is None else self._patience)
            self._open[connection.fileno()] = _Sent(name, connection, deadline)

    def _give_up(self) -> None:
        """Wait no longer for a daemon that hangs.  Raises Unresponsive."""
        late = [sent for sent in self._open.values() if sent.deadline < time.monotonic()]
        if late:
            self._hang_up()
            raise Unresponsive.after(late[0].connection.path, self._patience)

    def _settle(self, descriptor: int) -> None:
        name, connection, _ = self._open.pop(descriptor)
        with connection:
            try:
                answer = connection.receive()
                self._was_misused = self._was_misused or answer.status == 400
                result = _result(name, answer)
            except Broken:
                self._client.connect().close()  # no daemon any more: that is the thing to tell
                message = "the daemon ended before the outcome was known"
                result = {"name": name, "ok": False, "message": message, "kernel": None}
        self.results.append(result)
        self._transient.clear()
        if not self._arguments.json:
            _tell(result)

    def _look(self) -> None:
        """Show how the kernels that are waited for get on."""
        now = time.monotonic()
        if not self._transient.shows or not self._open or now - self._looked_at < _LOOK_INTERVAL:
            return
        self._looked_at = now
        try:
            views: list[View] = get(self._client, "/v1/status")["kernels"]
        except (NoDaemon, Broken):
            return  # the open connections will tell
        unsettled = set(self.unsettled)
        states = [words.progress(view, words.now()) for view in views if view["name"] in unsettled]
        done = len(self.results)
        self._transient.show(f"{done} of {done + len(unsettled)}; waiting for {', '.join(states)}")


def _result(name: str, answer: Answer) -> Result:
    body = answer.body
    if answer.is_error:
        hint = body.get("hint") if "kernel" not in body else ""
        message = body.get("error") or f"the daemon answered with status {answer.status}"
        text = f"{message}: {hint}" if hint else str(message)
        return {"name": name, "ok": False, "message": text, "kernel": body.get("kernel")}
    return {"name": name, "ok": True, "message": body.get("message") or "", "kernel": body.get("kernel")}


def _tell(result: Result) -> None:
    name, view = result["name"], result["kernel"] or {}
    text = one_line(result["message"]) or (words.state(view) if view else "done")
    line = text if text.startswith((f"{name} ", f"{name}:")) else f"{name}: {text}"
    if result["ok"]:
        say(line)
        sys.stdout.flush()
        return
    complain(line)
    if view.get("phase") in {"failed", "backoff"}:
        for tail_line in words.tail(view, _TAIL_LINES):
            complain(f"  | {one_line(tail_line)}")


def _leave(waiting: _Waiting, arguments: Namespace) -> int:
    try:
        unsettled = waiting.close()
    except NoDaemon as missing:
        complain(f"stopped waiting; and the daemon is gone: {missing}")
        return FAILED
    if arguments.json:
        say_json({"ok": False, "results": waiting.results, "unsettled": unsettled})
    left = ", ".join(unsettled)
    complain(f"stopped waiting; the order stands for {left}: kernel-supervisor status tells how it goes")
    return FAILED
