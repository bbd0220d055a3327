"""What the control door asks of the daemon, answered.

Owns the answers' form (docs/api.md).  Everything in them comes from the
supervision and the settings file; every order goes to the runner.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
from msgspec.structs import asdict

from supervisor.control.lookup import is_same_file
from supervisor.control.requests import EventsRequest, OutputRequest
from supervisor.control.steering import UnknownKernel
from supervisor.core.events import Order
from supervisor.core.model import Kernel, identity_of, launched_of, process_of
from supervisor.daemon.daemon import Daemon
from supervisor.disk.off_loop import Hanging, Lane
from supervisor.output.file import Reader
from supervisor.process.usage import Meter
from supervisor.settings.file import ConfigError, load
from supervisor.settings.text import toml_value
from supervisor.supervision.supervision import OrderRefused
from supervisor.version import __version__
from supervisor.wording import timestamp

log = logging.getLogger(__name__)

Fields = dict[str, Any]

# Events that are read and told at once.
EVENTS_AT_ONCE = 200
# How often the output of a kernel is looked at for somebody who follows it, and that of a quiet one; seconds.
OUTPUT_INTERVAL = 0.3
QUIET_INTERVAL = 2.0


async def _off_loop(replay: Callable[[], Iterator[Fields]]) -> AsyncIterator[list[Fields]]:
    """Past events: what is asked for may be rare and megabytes apart, and the disk may hang."""
    reading = Lane("past events")
    try:
        past = await reading.do(replay)
        while lines := await reading.do(lambda: list(islice(past, EVENTS_AT_ONCE))):
            yield lines
    except Hanging as hanging:
        log.warning("the events so far cannot be read: %s", hanging)


def _shortened(line: Fields) -> Fields:
    return {name: value for name, value in line.items() if name != "output_tail"}


class SteeredDaemon:
    """The daemon, as the door sees it (``control.steering.Steering``)."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._supervision = daemon.supervision
        self._started_at = timestamp()
        self.instance = daemon.supervision.instance
        self._meter = Meter()
        self._measuring, self._asking = Lane("usage"), Lane("usage elsewhere")

    def names(self) -> list[str]:
        """The kernels, in the order of the file."""
        return self._supervision.names()

    def _kernel(self, name: str) -> Kernel:
        try:
            return self._supervision.kernel(name)
        except KeyError:
            raise UnknownKernel(name, self.names()) from None

    def _kernels(self, names: Sequence[str]) -> list[Kernel]:
        return [self._kernel(name) for name in names or self.names()]

    def status(self, names: Sequence[str]) -> Fields:
        """The daemon, its file, and its kernels."""
        file, supervision = self._daemon.file, self._supervision
        kernels = self._kernels(names)
        return {
            "instance": self.instance,
            "pid": os.getpid(),
            "version": __version__,
            "started_at": self._started_at,
            "config": {
                "path": str(file.path),
                "loaded_at": file.loaded_at,
                "ahead_since": file.ahead_since,
                "mistakes": list(file.mistakes),
                "mistakes_at": [
                    {"file": m.file, "line": m.line, "key": m.key, "text": m.what} for m in file.found
                ],
                "last_good_in_use": file.last_good_in_use,
            },
            "state_dir": str(supervision.places.state_dir),
            "events_file": str(supervision.events_file.path),
            "cgroups": {"state": supervision.cgroups.level.value, "advice": supervision.cgroups.advice},
            "seq": supervision.runner.sequence,
            "degraded": supervision.degraded(),
            "kernels": [supervision.view(kernel) for kernel in kernels],
        }

    async def order(self, order: Order, *, wait: bool, timeout: float | None) -> Fields:
        """Submit an order, and wait for what comes of it if asked."""
        self._kernel(order.kernel)
        try:
            ok, message, kernel = await self._supervision.order(order, wait=wait, timeout=timeout)
        except OrderRefused as refusal:
            kernel = self._supervision.runner.state.kernels.get(order.kernel)
            ok, message = False, str(refusal)
        return {"ok": ok, "message": message, "kernel": self._supervision.view(kernel) if kernel else None}

    async def reload(self) -> Fields:
        """Read the file now."""
        before = await self.plan(None)
        if (rejected := await self._daemon.reload()) is not None:
            return {"accepted": False, "mistakes": list(rejected.mistakes), "changes": [], "supervisor": []}
        changes = [line for line in before["kernels"] if line["action"] != "none"]
        return {"accepted": True, "mistakes": [], "changes": changes, "supervisor": before["supervisor"]}

    async def plan(self, path: str | None) -> Fields:
        """What loading a file would do; does nothing."""
        own = self._daemon.file.path
        # By the name that the daemon knows it by: relative directories begin there.
        file = own if path is None or is_same_file(path, own) else Path(path)
        try:
            loaded = await Lane("plan").do(load, file)
        except (ConfigError, OSError, Hanging) as error:
            mistakes = (
                error.mistakes if isinstance(error, ConfigError) else [f"{file}: cannot be read: {error}"]
            )
            return {"accepted": False, "mistakes": list(map(str, mistakes)), "kernels": [], "supervisor": []}
        kernels = [asdict(line) for line in self._supervision.plan(loaded.config)]
        edited = self._daemon.edited_keys(loaded.config)
        supervisor = [{"key": key, "action": action} for key, action in edited.items()]
        return {"accepted": True, "mistakes": [], "kernels": kernels, "supervisor": supervisor}

    def connection(self, name: str) -> Fields:
        """The connection file's path and its content, without the key."""
        kernel = self._kernel(name)
        connection = self._supervision.host.entry(kernel.name).connection
        # As we wrote it, not as it is found: that may be anybody's, or on a disk that hangs.
        is_known = identity_of(kernel) is not None and not connection.is_presumed
        content = connection.address.to_mapping() if connection.address and is_known else {}
        return {"path": str(connection.path), "content": {k: v for k, v in content.items() if k != "key"}}

    async def executing(self, name: str) -> Fields | None:
        """The cell that it executes, as far as it tells."""
        self._kernel(name)
        run = self._supervision.host.entry(name).run
        cell = None if run is None else await run.executing()
        return None if cell is None else {"count": cell.count, "since": cell.since, "code": cell.code}

    async def stacks(self, name: str) -> list[str]:
        """What its threads do."""
        self._kernel(name)
        run = self._supervision.host.entry(name).run
        return [] if run is None else list(await run.stacks())

    def settings(self, name: str) -> list[Fields]:
        """The settings in force, key by key, and where each comes from."""
        kernel = self._kernel(name)
        config = kernel.declared or launched_of(kernel)
        origins = self._daemon.file.origins.get(name, {})
        shown = config.__rich_repr__() if config is not None else ()
        return [
            {"key": key, "value": toml_value(value) if value is not None else "not set",
             "origin": origins.get(key, "built in")}
            for key, value in shown
            if key != "name"
        ]  # fmt: skip

    async def usage(self, names: Sequence[str]) -> dict[str, Fields]:
        """What kernels use, measured off the loop; one measure at a time."""
        kernels = self._kernels(names)
        roots = {kernel.name: process for kernel in kernels if (process := process_of(kernel)) is not None}
        found = await self._measuring.do(self._meter.measure, list(roots.values()))
        here = {name: asdict(found[process]) for name, process in roots.items() if process in found}
        return {**here, **await self._usage_elsewhere([k.name for k in kernels if k.name not in roots])}

    async def _usage_elsewhere(self, names: Iterable[str]) -> dict[str, Fields]:
        """What others tell of kernels that are not here, in files that are shared."""
        runs = {name: run for name in names if (run := self._supervision.host.entry(name).run)}
        handles = {name: run.handle for name, run in runs.items() if not run.is_over}
        try:
            told = await self._asking.do(lambda: {name: handle.usage() for name, handle in handles.items()})
        except Hanging as hanging:
            log.warning("what kernels on other machines use cannot be read: %s", hanging)
            return {}
        return {name: dict(usage) for name, usage in told.items() if usage is not None}

    async def counts(self) -> Fields:
        """What metrics are made of."""
        began = time.monotonic()
        await asyncio.sleep(0)
        lag = time.monotonic() - began
        own = psutil.Process()
        daemon = {"lag": lag, "memory": own.memory_info().rss, "descriptors": own.num_fds()}
        return {**self._supervision.counts.fields(), "daemon": daemon}

    def output(self, name: str, asked: OutputRequest) -> AsyncIterator[Sequence[Fields]]:
        """What the kernel process wrote.  Raises UnknownKernel before the stream begins."""
        return self._output(self._kernel(name).name, asked)

    async def _output(self, name: str, asked: OutputRequest) -> AsyncIterator[Sequence[Fields]]:
        """Looked for off the loop, as long as somebody follows."""
        reader = Reader(self._supervision.places.output_file(name), asked.last)
        lane = Lane(f"output of {name} for a reader")
        decoder = getincrementaldecoder("utf-8")("replace")
        pause = OUTPUT_INTERVAL
        try:
            while True:
                data = await lane.do(reader.read)
                if data:
                    pause = OUTPUT_INTERVAL
                    yield [{"text": decoder.decode(data).replace("\0", "")}]
                elif not asked.follow:
                    return
                else:
                    await asyncio.sleep(pause)
                    pause = min(1.5 * pause, QUIET_INTERVAL)
        finally:
            reader.close()

    async def test_hook(self, label: str) -> Fields:
        """Run a hook with a sample event."""
        hooks = self._supervision.hooks
        hook = next((hook for hook in hooks.configs if hook.label == label), None)
        if hook is None:
            known = ", ".join(hook.label for hook in hooks.configs) or "none is declared"
            return {"ok": False, "message": f"no hook is named {label!r}", "hint": f"there are: {known}"}
        wrong = await hooks.test(hook)
        return {"ok": wrong is None, "message": f"hook {label}: {wrong or 'ended well'}"}

    async def events(self, asked: EventsRequest) -> AsyncIterator[Sequence[Fields]]:
        """Replay what is on disk, then follow."""
        kernels = asked.kernel or None

        def wanted(line: Mapping[str, object]) -> bool:
            return (kernels is None or line.get("kernel") in kernels) and (
                asked.event in (None, line.get("event"))
            )

        # Nothing falls between the two, and nothing comes twice, because both happen before the loop goes on.
        past = self._supervision.events_file.snapshot()
        subscription = self._supervision.stream.subscribe(wanted=wanted) if asked.follow else None
        try:
            replay = partial(
                past.replay,
                kernels=kernels,
                event=asked.event,
                since=asked.began,
                last=asked.last,
                after=asked.after,
            )
            async for lines in _off_loop(replay):
                yield list(map(_shortened, lines)) if asked.brief else lines
            if subscription is not None:
                async for line in subscription:
                    yield [_shortened(line) if asked.brief else line]
        finally:
            if subscription is not None:
                subscription.close()

    async def detach(self) -> str | None:
        """Begin to exit, leaving the kernels running; why not, if that is refused."""
        return self._daemon.detach()

    async def shutdown(self, *, now: bool) -> None:
        """Begin to stop all kernels and exit."""
        self._daemon.shutdown(now=now)
