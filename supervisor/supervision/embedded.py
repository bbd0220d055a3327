"""``Supervisor``: several kernels under supervision, inside an asyncio program.

Owns the public form of ``supervisor.supervision.supervision``: kernels by name, orders that are
awaited, events to iterate over.  Installs no signal handler and opens no door.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from supervisor.control.lookup import default_state_dir, expand
from supervisor.core.events import Interrupt, Order, Reset, Restart, SendSignal, Start, Stop
from supervisor.core.model import Death, Failed, Kernel, Running, Stopped, process_of
from supervisor.disk.off_loop import Lane
from supervisor.observe.callbacks import Callback, Callbacks
from supervisor.observe.stream import Subscription
from supervisor.settings.config import Config, KernelConfig, SupervisorConfig
from supervisor.settings.file import effective_toml, load, parse
from supervisor.supervision.supervision import OrderRefused, Supervision
from supervisor.views import phase_name

if TYPE_CHECKING:
    from jupyter_client.asynchronous.client import AsyncKernelClient

__all__ = ["OrderRefused", "SupervisedKernel", "Supervisor"]

OnExit = Literal["stop", "keep"]


class SupervisedKernel:
    """One kernel of a ``Supervisor``.

    Properties tell what is so now.  Orders return once they are carried out,
    and raise OrderRefused if they are not, be it that the kernel failed.
    """

    def __init__(self, supervisor: Supervisor, name: str) -> None:
        self.name = name
        self._supervisor = supervisor

    def __repr__(self) -> str:
        return f"<SupervisedKernel {self.name}>"

    @property
    def _kernel(self) -> Kernel:
        return self._supervisor.supervision.kernel(self.name)

    @property
    def phase(self) -> str:
        """Of: stopped, starting, running, stopping, backoff, failed."""
        return phase_name(self._kernel.phase)

    @property
    def want(self) -> Literal["up", "down"]:
        """What the last order or the settings want."""
        return self._kernel.want.value

    @property
    def reason(self) -> str:
        """Why it failed, or an empty text."""
        phase = self._kernel.phase
        return phase.reason if isinstance(phase, Failed) else ""

    @property
    def pid(self) -> int | None:
        """The pid of its process, if there is one."""
        process = process_of(self._kernel)
        return None if process is None else process.pid

    @property
    def generation(self) -> int:
        """The number of its run."""
        return self._kernel.generation

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self._kernel.restarts

    @property
    def last_death(self) -> Death | None:
        """The last end that nobody wanted."""
        return self._kernel.last_death

    @property
    def connection_file(self) -> Path:
        """Where clients find its address."""
        return self._supervisor.supervision.places.connection_file(self.name)

    @property
    def output_file(self) -> Path:
        """What its process wrote to stdout and stderr."""
        return self._supervisor.supervision.places.output_file(self.name)

    def status(self) -> dict[str, Any]:
        """The kernel as ``kernel-supervisor status --json`` shows it."""
        return self._supervisor.supervision.view(self._kernel)

    def client(self, **kw: Any) -> AsyncKernelClient:
        """A client of the kernel, its channels not started.  FileNotFoundError while it is stopped."""
        from jupyter_client.asynchronous.client import AsyncKernelClient

        made = AsyncKernelClient(**kw)
        made.load_connection_file(str(self.connection_file))
        return made

    async def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until it answers.

        TimeoutError after so many seconds; OrderRefused if it is stopped or has failed.
        """
        runner = self._supervisor.supervision.runner
        async with asyncio.timeout(timeout):
            while not isinstance((phase := self._kernel.phase), Running):
                if isinstance(phase, Stopped | Failed):
                    raise OrderRefused(f'kernel "{self.name}" is {self.phase}: {self.reason or "start it"}')
                await runner.wait_for_change()

    async def start(self) -> None:
        """Want it up; returns when it is ready."""
        await self._order(Start(self.name))

    async def stop(self, *, now: bool = False) -> None:
        """Want it down; returns when it has ended.  ``now`` kills at once."""
        await self._order(Stop(self.name, now))

    async def restart(self, *, now: bool = False, new_ports: bool = False) -> None:
        """Give it a new run at the same address (or a new one); returns when that is ready."""
        await self._order(Restart(self.name, now, new_ports))

    async def kill(self) -> None:
        """Stop it with SIGKILL; it stays stopped."""
        await self.stop(now=True)

    async def reset(self) -> None:
        """Forget its failures, and start it."""
        await self._order(Reset(self.name))

    async def interrupt(self) -> None:
        """Interrupt what it executes."""
        await self._order(Interrupt(self.name))

    async def signal(self, signum: int) -> None:
        """Send a signal to its process group."""
        await self._order(SendSignal(self.name, signum))

    async def _order(self, order: Order) -> None:
        ok, message, _ = await self._supervisor.supervision.order(order)
        if not ok:
            raise OrderRefused(f'kernel "{self.name}": {message}')


class Supervisor(Mapping[str, SupervisedKernel]):
    """Keeps kernels alive for as long as it is entered (``async with``).

    ``state_dir`` holds records, output and events; by default it is a private
    directory that is removed at the end.  A state directory has one supervisor
    at a time: entering raises AlreadyLocked.  ``runtime_dir`` is for connection
    files; by default Jupyter's.  With ``on_exit="keep"`` leaving lets the kernels live,
    and the next supervisor of this state directory, or a daemon, takes them up.

    Raises ConfigError, which tells all mistakes in the settings, and TypeError.
    """

    def __init__(
        self,
        *kernels: KernelConfig,
        state_dir: str | os.PathLike[str] | None = None,
        runtime_dir: str | os.PathLike[str] | None = None,
        on_exit: OnExit = "stop",
        max_concurrent_starts: int = 4,
    ) -> None:
        if on_exit == "keep" and state_dir is None:
            raise ValueError('on_exit: "keep" needs a state_dir, for the next supervisor to find the kernels')
        self._settings = SupervisorConfig(on_exit=on_exit, max_concurrent_starts=max_concurrent_starts)
        self._config = self._checked(kernels)
        self._file: Path | None = None
        self._state_dir = None if state_dir is None else Path(state_dir).absolute()
        self._runtime_dir = None if runtime_dir is None else Path(runtime_dir).absolute()
        self._temporary: Path | None = None
        self._entered: Supervision | None = None
        self._callbacks: list[tuple[str | None, Callback, str]] = []

    @classmethod
    def from_toml(
        cls,
        path: str | os.PathLike[str],
        *,
        state_dir: str | os.PathLike[str] | None = None,
        runtime_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """The kernels, places and ``on_exit`` of a file, as the daemon has them.  Raises ConfigError."""
        file = Path(path).absolute()
        config = load(file).config
        settings = config.supervisor
        made = cls(state_dir=state_dir, runtime_dir=runtime_dir)
        made._file, made._config, made._settings = file, config, settings
        if made._state_dir is None:
            named = settings.state_dir
            made._state_dir = expand(named, file.parent) if named else default_state_dir(os.environ)
        if made._runtime_dir is None and settings.runtime_dir:
            made._runtime_dir = expand(settings.runtime_dir, file.parent)
        return made

    def _checked(self, kernels: tuple[KernelConfig, ...]) -> Config:
        if others := [kernel for kernel in kernels if not isinstance(kernel, KernelConfig)]:
            raise TypeError(f"kernels: {others[0]!r} is no KernelConfig; a file is for Supervisor.from_toml")
        names = [str(kernel.name) for kernel in kernels]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"kernels: the name is given twice: {', '.join(sorted(twice))}")
        config = Config(supervisor=self._settings, kernels=dict(zip(names, kernels, strict=True)))
        # A value that was made in Python is not checked until it is read as one of a file.
        return parse(effective_toml(config), "Supervisor") if kernels else config

    @property
    def supervision(self) -> Supervision:
        """What is underneath; RuntimeError outside of ``async with``."""
        if self._entered is None:
            raise RuntimeError("enter the supervisor first: async with Supervisor(…) as supervisor")
        return self._entered

    async def __aenter__(self) -> Self:
        if self._entered is not None:
            raise RuntimeError("the supervisor is entered already")
        if self._state_dir is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="kernel-supervisor-"))
        supervision = Supervision(self._config, *self._places())
        try:
            supervision.lock()
            await self._begin(supervision)
        except BaseException:
            supervision.unlock()
            self._remove_temporary()
            raise
        return self

    def _places(self) -> tuple[Path, Path]:
        from jupyter_core.paths import jupyter_runtime_dir

        state_dir = self._state_dir or self._temporary
        assert state_dir is not None, "made on entering"
        return state_dir, self._runtime_dir or Path(jupyter_runtime_dir())

    async def _begin(self, supervision: Supervision) -> None:
        for registration in self._callbacks:
            supervision.callbacks.add(*registration)
        supervision.open()
        self._entered = supervision
        try:
            await supervision.look_back()
            supervision.take_up()
            supervision.load(self._config)
        except BaseException:
            self._entered = None
            await supervision.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        supervision = self.supervision
        try:
            if self._config.supervisor.on_exit == "stop":
                await supervision.stop_all()
        except asyncio.CancelledError:
            # Whoever cancels will not wait, and nothing is to be left behind.
            await supervision.stop_all(now=True)
            raise
        finally:
            self._entered = None
            await supervision.close()
            supervision.unlock()
            self._remove_temporary()

    def _remove_temporary(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    # The kernels, by name

    def __getitem__(self, name: str) -> SupervisedKernel:
        if name not in self.supervision.names():
            raise KeyError(name)
        return SupervisedKernel(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.supervision.names())

    def __len__(self) -> int:
        return len(self.supervision.names())

    # What happens to them

    def events(self, *kernels: str) -> Subscription:
        """Follow the lifecycle events from now on: an async iterator of mappings, also a context manager.

        Those of ``kernels``, or all.  It ends with the supervisor.  A reader that is too slow is
        told by ``stream.gap`` how many it missed.
        """
        wanted = (lambda event: event.get("kernel") in kernels) if kernels else None
        return self.supervision.stream.subscribe(wanted=wanted)

    def add_restart_callback(self, kernel: str | None, callback: Callback, event: str = "restart") -> None:
        """Call ``callback`` at each ``event`` of the kernel, or of all for ``None``.

        Events: "restart" after a death, before the relaunch; "dead" when given up;
        "restarted" when the process of an ordered restart is there.  A function (in a thread) or a
        coroutine function (on the loop); one that needs an argument gets the event.  May be registered
        before entering.  ValueError, TypeError.
        """
        # Checked at once, also where it is registered for later.
        (Callbacks() if self._entered is None else self._entered.callbacks).add(kernel, callback, event)
        self._callbacks.append((kernel, callback, event))

    def remove_restart_callback(self, kernel: str | None, callback: Callback, event: str = "restart") -> None:
        """Undo one ``add_restart_callback``; no error if there was none."""
        if (kernel, callback, event) in self._callbacks:
            self._callbacks.remove((kernel, callback, event))
        if self._entered is not None:
            self._entered.callbacks.remove(kernel, callback, event)

    async def reload(self, *kernels: KernelConfig) -> None:
        """Have exactly these kernels from now on; without any, those of the file, which is read anew.

        Untouched is what is the same.  Raises ConfigError, and everything stays as
        it is; ValueError without kernels and without a file.
        """
        supervision = self.supervision
        if not kernels and self._file is None:
            raise ValueError("reload: there is no file to read: give the kernels")
        if kernels:
            config = self._checked(kernels)
        else:
            config = (await Lane("configuration").do(load, str(self._file))).config
        self._config = config
        supervision.load(config)
