"""The verb ``exec``: runs code in a kernel and prints what comes of it, as it comes.

Owns one conversation with a kernel over its own channels.  Interrupts go
through the daemon, which knows how this kernel is interrupted, and the daemon
tells when the kernel dies meanwhile.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from supervisor.cli.asking import View, client_of, get, one
from supervisor.cli.exits import DONE, FAILED, USAGE, Quit
from supervisor.cli.screen import Shown, complain, has_colour, json_text, say
from supervisor.cli.using import refuse_closed, refuse_planted
from supervisor.control.client import Broken, Client, NoDaemon, target
from supervisor.wording import how_it_ended, one_line

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_POLL_MS = 100
_LOOK_INTERVAL = 0.5
_JOIN_TIMEOUT = 1.0
_LATE_OUTPUT_TIMEOUT = 2.0

Message = dict[str, Any]


def execute(arguments: Namespace) -> int:
    """Run the code; the exit code tells whether it raised."""
    code = _code_of(arguments)
    client = client_of(arguments)
    view = one(client, arguments.name)
    if view["phase"] != "running":
        hint = f"kernel-supervisor start {view['name']}"
        raise Quit(FAILED, f"{view['name']} is {view['phase']}, not running", hint)
    refuse_planted(client, view)
    refuse_closed(view)
    with _interrupts() as interrupts, _channels(str(view["connection_file"])) as channels:
        watch = _Watch(client, view, interrupts, arguments.timeout)
        printer = (JsonPrinter if arguments.json else Printer)(is_raw=arguments.raw)
        return _Conversation(channels, watch, printer).run(code)


def _code_of(arguments: Namespace) -> str:
    if arguments.code is None and sys.stdin.isatty():
        raise Quit(USAGE, "exec: which code?", "give it as one argument, or - to read it from stdin")
    if arguments.code in {None, "-"}:
        return sys.stdin.read()
    return str(arguments.code)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """One element for each Ctrl-C that was pressed; it interrupts the kernel, not us."""
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda signum, _: interrupts.append(signum))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _channels(connection_file: str) -> Iterator[Any]:
    """A client of the kernel with its channels open, closed in the end."""
    from jupyter_client.blocking.client import BlockingKernelClient

    channels = BlockingKernelClient(connection_file=connection_file)
    try:
        channels.load_connection_file()
    except (OSError, ValueError) as error:
        raise Quit(
            FAILED, f"{connection_file} cannot be read: {error}", "look at: kernel-supervisor status"
        ) from None
    channels.start_channels(stdin=False, hb=False)
    try:
        yield channels
    finally:
        channels.stop_channels()


class _Ended(Exception):
    """The answer is not waited for any longer; the text says why."""


class _Watch:
    """What may end the conversation: the kernel's death, Ctrl-C twice, the time."""

    def __init__(self, client: Client, view: View, interrupts: list[int], timeout: float | None) -> None:
        self._client = client
        self._view = view
        self._interrupts = interrupts
        self._answered_interrupts = 0
        self._timeout = timeout
        self._began_at = self._looked_at = time.monotonic()

    def look(self) -> None:
        """Look whether it is to go on.  Raises _Ended."""
        now = time.monotonic()
        name = self._view["name"]
        if len(self._interrupts) > self._answered_interrupts:
            self._answered_interrupts += 1
            if self._answered_interrupts > 1:
                raise _Ended(f"given up; {name} may still execute it: kernel-supervisor restart {name}")
            self._interrupt()
        if self._timeout is not None and now - self._began_at > self._timeout:
            hint = f"{name} goes on executing it: kernel-supervisor interrupt {name}"
            raise _Ended(f"no end after {self._timeout:g} s; {hint}")
        if now - self._looked_at > _LOOK_INTERVAL:
            self._looked_at = now
            self._look_at_kernel()

    def _interrupt(self) -> None:
        name = self._view["name"]
        complain(f"interrupting {name}; Ctrl-C again gives up")
        try:
            answer = self._client.ask("POST", target(f"/v1/kernels/{name}/interrupt"), {"wait": False})
        except (NoDaemon, Broken) as error:
            complain(f"it cannot be interrupted: {error}")
            return
        if answer.is_error:
            complain(f"it cannot be interrupted: {one_line(answer.body.get('error'))}")

    def _look_at_kernel(self) -> None:
        name = self._view["name"]
        try:
            view = get(self._client, f"/v1/kernels/{name}")["kernel"]
        except (NoDaemon, Broken):
            return  # the kernel does not need the daemon
        except Quit:
            raise _Ended(f"{name} is not declared any more") from None
        same_run = view.get("generation") == self._view.get("generation")
        if same_run and view.get("phase") in {"running", "stopping"}:
            return
        raise _Ended(how_it_ended(view, self._view.get("generation", 0)))


class Printer:
    """Prints outputs for people: streams where they belong, results as text, errors with a traceback."""

    def __init__(self, *, is_raw: bool) -> None:
        self._is_raw = is_raw
        self._shown = {sys.stdout: Shown(), sys.stderr: Shown()}

    def show(self, kind: str, content: Message) -> None:
        """Print one output, at once."""
        match kind:
            case "stream":
                stream = sys.stderr if content.get("name") == "stderr" else sys.stdout
                self._write(stream, str(content.get("text", "")))
            case "execute_result" | "display_data" | "update_display_data":
                data = content.get("data") or {}
                self._write(sys.stdout, f"{_plain(data, sys.stdout)}\n")
            case "error":
                sys.stdout.flush()
                error = f"{content.get('ename') or 'error'}: {content.get('evalue')}"
                text = "\n".join(map(str, content.get("traceback") or [error]))
                self._write(sys.stderr, f"{_coloured(text, sys.stderr)}\n")

    def _write(self, stream: TextIO, text: str) -> None:
        is_raw = self._is_raw or not stream.isatty()
        stream.write(text if is_raw else self._shown[stream].of(text))
        stream.flush()

    def end(self, reply: Message) -> None:
        """Nothing more comes."""


def _plain(data: Message, stream: TextIO) -> str:
    untold = f"<{', '.join(sorted(data))}>" if data else ""
    return _coloured(str(data.get("text/plain") or untold), stream)


def _coloured(text: str, stream: TextIO) -> str:
    return text if has_colour(stream) else _ESCAPES.sub("", text)


class JsonPrinter(Printer):
    """Prints outputs as programs read them: one JSON object a line, in the words of notebooks."""

    def show(self, kind: str, content: Message) -> None:
        say(json_text({"output_type": kind, **content}))
        sys.stdout.flush()

    def end(self, reply: Message) -> None:
        say(json_text({"status": reply.get("status"), "execution_count": reply.get("execution_count")}))


_OUTPUTS = frozenset({"stream", "execute_result", "display_data", "update_display_data", "error"})


class _Conversation:
    """One request to execute, and all that answers it."""

    def __init__(self, channels: Any, watch: _Watch, printer: Printer) -> None:
        import zmq

        self._channels = channels
        self._watch = watch
        self._printer = printer
        self._iopub = channels.iopub_channel.socket
        self._shell = channels.shell_channel.socket
        self._poller = zmq.Poller()
        self._poller.register(self._iopub, zmq.POLLIN)
        self._poller.register(self._shell, zmq.POLLIN)
        self._request = ""
        self._reply: Message | None = None
        self._is_idle = False
        self._showed_error = False

    def run(self, code: str) -> int:
        """Execute; returns the exit code."""
        try:
            self._join()
            self._request = self._channels.execute(code, allow_stdin=False)
            reply = self._answer()
        except _Ended as end:
            self._receive()  # what it still wrote
            complain(str(end))
            return FAILED
        self._printer.end(reply)
        if reply.get("status") == "ok":
            return DONE
        if reply.get("status") == "error" and not self._showed_error:
            self._printer.show("error", reply)
        elif reply.get("status") != "error":
            complain(f"the kernel did not execute it: {one_line(reply.get('status'))}: try again")
        return FAILED

    def _join(self) -> None:
        """Wait until the kernel's publications reach us: a subscription takes a moment.

        A request on control makes most kernels publish their status, also
        while they execute something; the others get one on shell.
        """
        session = self._channels.session
        session.send(self._channels.control_channel.socket, "kernel_info_request", content={})
        if not self._wait_published():
            session.send(self._shell, "kernel_info_request", content={})
            self._wait_published()

    def _wait_published(self) -> bool:
        deadline = time.monotonic() + _JOIN_TIMEOUT
        while time.monotonic() < deadline:
            self._watch.look()
            if self._iopub.poll(_POLL_MS):
                return True
        return False

    def _answer(self) -> Message:
        """The reply, once all that was published before it is shown.  Raises _Ended."""
        late_since = None
        while True:
            self._poller.poll(_POLL_MS)
            self._receive()
            if self._reply is not None:
                now = time.monotonic()
                late_since = late_since or now
                if self._is_idle or now - late_since > _LATE_OUTPUT_TIMEOUT:
                    return self._reply
            self._watch.look()

    def _receive(self) -> None:
        """Take all messages that are there."""
        for message in self._messages(self._iopub):
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "status" and content.get("execution_state") == "idle":
                self._is_idle = True
            elif kind in _OUTPUTS:
                self._showed_error = self._showed_error or kind == "error"
                self._printer.show(kind, content)
        for message in self._messages(self._shell):
            if message["header"]["msg_type"] == "execute_reply":
                self._reply = message["content"]

    def _messages(self, socket: Any) -> Iterator[Message]:
        """The messages on a socket that answer our request."""
        import zmq

        while socket.poll(0):
            try:
                _, message = self._channels.session.recv(socket, mode=zmq.NOBLOCK)
            except (ValueError, TypeError):
                continue  # not signed with our key, or no message at all
            # xeus-python sends null for a parent that there is not.
            if message is not None and (message["parent_header"] or {}).get("msg_id") == self._request:
                yield message
