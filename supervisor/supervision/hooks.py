"""The commands of ``[[hooks]]``: told of events, beside everything else.

Owns whom an event concerns, what waits for a free place, and the processes of
the commands until they end.  Never delays what it tells of: at most four run at
a time, a hundred wait, and what is more than that is counted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatchcase

from supervisor.disk.off_loop import Lane
from supervisor.kernel.launch import without_ours
from supervisor.observe.event_line import encode
from supervisor.observe.redaction import clean
from supervisor.observe.sentence import sentence
from supervisor.process.dispositions import default_signals
from supervisor.settings.config import EVENTS, HookConfig
from supervisor.wording import signal_name, timestamp

log = logging.getLogger(__name__)

MOST_AT_ONCE = 4
MOST_WAITING = 100
# What a command gets after SIGTERM before it is killed, in seconds.
KILL_PATIENCE = 2.0
# How long an exit of the daemon waits for commands that it has begun itself, in seconds.
LAST_PATIENCE = 2.0

_PREFIX = "KERNEL_SUPERVISOR_"
# Fields of an event that a command finds in its environment, each as PREFIX and its name in capitals.
_FIELDS = (
    *("event", "level", "timestamp", "kernel", "generation", "pid", "cause", "exit_code", "signal"),
    *("uptime", "reason", "detail", "attempt", "delay", "check", "file"),
)


class Hooks:
    """The observer that runs the commands; on the loop's thread, but for the commands themselves."""

    def __init__(self, configs: tuple[HookConfig, ...] = ()) -> None:
        self.configs = configs
        self._waiting: deque[tuple[HookConfig, Mapping[str, object]]] = deque()
        self._running: dict[asyncio.Task[None], Command] = {}
        self._lost = 0
        self._failing: set[HookConfig] = set()
        self._closed = False

    def __call__(self, event: Mapping[str, object]) -> None:
        """Have the commands run that the event concerns."""
        for hook in self.configs:
            if self._closed or not concerns(hook, event):
                continue
            if len(self._waiting) >= MOST_WAITING:
                self._lost += 1
                if self._lost == 1:
                    log.warning("the hooks take too long: %d events wait, more are lost", MOST_WAITING)
            else:
                self._waiting.append((hook, clean(event)))
        self._begin()

    @property
    def pending(self) -> int:
        """How many commands run or wait."""
        return len(self._running) + len(self._waiting)

    def _begin(self) -> None:
        while self._waiting and len(self._running) < MOST_AT_ONCE:
            hook, event = self._waiting.popleft()
            command = Command(hook, event)
            task = asyncio.get_running_loop().create_task(self._run(hook, command))
            self._running[task] = command
            task.add_done_callback(self._ended)

    async def _run(self, hook: HookConfig, command: Command) -> None:
        wrong = await command.run()
        if wrong is None:
            self._failing.discard(hook)
        elif hook not in self._failing and not self._closed:
            self._failing.add(hook)
            log.warning("hook %s: %s; until it works again, that is not told once more", hook.label, wrong)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a hook could not be run", exc_info=error)
        if self._lost and not self._waiting:
            log.warning("%d events were not passed to the hooks", self._lost)
            self._lost = 0
        if not self._closed:
            self._begin()

    async def test(self, hook: HookConfig) -> str | None:
        """Run a hook with a sample of its first event; returns what went wrong, or ``None``."""
        name = next((event for event in EVENTS if fnmatchcase(event, hook.events[0])), "kernel.died")
        sample = {
            "timestamp": timestamp(),
            "level": "warning",
            "event": name,
            "kernel": "sample",
            "generation": 1,
            "pid": 1,
            "cause": "killed",
            "signal": "SIGKILL",
            "uptime": 3600.0,
            "output_tail": ["these are the last words of a sample"],
            "reason": "this is a sample",
        }
        return await Command(hook, sample).run()

    async def close(self) -> None:
        """Take no event any more; what has begun or waits has a moment, and is killed then."""
        deadline = asyncio.get_running_loop().time() + LAST_PATIENCE
        self.configs = ()
        while self._running and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(set(self._running), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
        self._closed = True
        self._waiting.clear()
        for command in self._running.values():
            command.kill()
        if self._running:
            await asyncio.wait(set(self._running), timeout=KILL_PATIENCE)


def concerns(hook: HookConfig, event: Mapping[str, object]) -> bool:
    """Whether the hook is to be told of the event; one of the daemon itself is of no kernel, and passes."""
    name, kernel = str(event.get("event")), event.get("kernel")
    return any(fnmatchcase(name, pattern) for pattern in hook.events) and (
        kernel is None or any(fnmatchcase(str(kernel), pattern) for pattern in hook.kernels)
    )


class Command:
    """One run of one command."""

    def __init__(self, hook: HookConfig, event: Mapping[str, object]) -> None:
        self._hook = hook
        self._event = event
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False

    async def run(self) -> str | None:
        """Run it to its end, off the loop; returns what went wrong, or ``None``."""
        return await Lane("hook", borrows=False).begin(self.call)

    def call(self) -> str | None:
        """The same, in the calling thread: blocks for ``timeout`` seconds at most, and a little."""
        hook = self._hook
        argv = [os.path.expanduser(hook.command[0]), *hook.command[1:]]  # noqa: PTH111 - ~user may be unknown
        try:
            with default_signals():
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE,
                    stdout=2,  # with stderr: where the daemon's own words go that are no log
                    env={**without_ours(os.environ), **environment(self._event)},
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            return f"cannot be run: {error}"
        self._process = process
        if self._is_killed:
            self.kill()
        with process:
            return self._wait(process)

    def _wait(self, process: subprocess.Popen[bytes]) -> str | None:
        try:
            process.communicate(encode(self._event), self._hook.timeout)
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGTERM)
            try:
                process.wait(KILL_PATIENCE)
            except subprocess.TimeoutExpired:
                _signal_group(process, signal.SIGKILL)
            return f"took more than {self._hook.timeout:g} s and was ended"
        code = process.returncode
        if code < 0:
            return f"was killed by {signal_name(-code)}"
        return f"failed with exit code {code}" if code else None

    def kill(self) -> None:
        """Kill it and what it has started; one that is not there yet, as soon as it is."""
        self._is_killed = True
        if self._process is not None and self._process.poll() is None:
            _signal_group(self._process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], signum: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signum)


def environment(event: Mapping[str, object]) -> dict[str, str]:
    """The main fields of an event as variables, and the whole as a sentence for people."""
    fields = {name: event[name] for name in _FIELDS if event.get(name) is not None}
    told = {**fields, "sentence": sentence(event)}
    return {f"{_PREFIX}{name.upper()}": _carried(value) for name, value in told.items()}


def _carried(value: object) -> str:
    """The text as execve(2) can carry it: no NUL, nothing that is no text."""
    return str(value).replace("\0", "").encode("utf-8", "backslashreplace").decode()
