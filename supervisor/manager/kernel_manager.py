"""``KernelManager``: one kernel across its runs, for programs without a daemon.

Owns the API that IPython's and jupyter_client's managers have.  Every method is an
order to a runner with a single kernel; it has no restart logic of its own.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

from supervisor.kernel.kernelspec import LaunchError
from supervisor.manager.base import SETTINGS, ManagerBase
from supervisor.manager.callbacks import Callback
from supervisor.manager.session import Farewell
from supervisor.manager.thread import Gone

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient

    from supervisor.manager.attached import AttachedKernelManager

__all__ = ["SETTINGS", "KernelManager", "run_kernel", "start_new_kernel"]

# A kernel that comes back may take this long, however little patience there is at the start; in seconds.
_LEAST_PATIENCE = 60.0


class KernelManager(ManagerBase):
    """Manages one kernel on this host, and starts it again at the same address when it dies.

    May be used from any thread, also beside a running event loop; not in a
    forked child.  ``settings`` are keys of a ``[kernels.NAME]`` table (see
    ``SETTINGS``).  ``kernel_cmd`` stands in for the command of the kernelspec.
    """

    @classmethod
    def attach(
        cls,
        name: str,
        socket: str | os.PathLike[str] | None = None,
        config: str | os.PathLike[str] | None = None,
    ) -> AttachedKernelManager:
        """A manager of a kernel that a running daemon supervises; its methods are orders to the daemon.

        The daemon is found as the command line finds it.  Raises
        ConnectionError if none answers, LookupError if it has no such kernel.
        """
        from supervisor.manager.attached import AttachedKernelManager

        return AttachedKernelManager(name, socket=socket, config=config)

    # Orders

    def start_kernel(self, **kw: Any) -> None:
        """Write the connection file and launch the kernel; returns when the process is there.

        ``kw``: keywords of ``subprocess.Popen``, remembered for restarts, files among
        them held open for those, whoever closes them; ``kernel_name`` and
        ``kernel_cmd``, attributes from then on; ``extra_arguments``; ``independent=True`` for
        a kernel that is to outlive this process; ``newports=True`` for another address
        than before.  Nothing stays of those of an earlier start.  Raises
        RuntimeError if one runs, if the address is not one of this machine, or a
        port is taken; NoSuchKernel; FileNotFoundError or PermissionError if
        the command cannot be executed; TypeError or ValueError for a keyword that is
        of no use.  Nothing is left behind then, nor remembered.
        """
        new_ports = bool(kw.pop("newports", False))
        self._here()
        with self._lock:
            if self.has_kernel:
                raise RuntimeError("a kernel runs already: use restart_kernel, or shut it down first")
            self._refuse_elsewhere()
            wait = self._order_launch(self._launch().updated(kw), now=False, new_ports=new_ports)
        wait()

    def restart_kernel(self, now: bool = False, **kw: Any) -> None:
        """Stop the kernel and launch it again at the same address; returns when the new process is there.

        With the arguments of the start, updated by ``kw``, for good.  ``now``
        kills at once; otherwise it has ``shutdown_wait_time`` seconds to exit.
        ``newports=True`` gives it another address.  Raises RuntimeError if
        none was ever started, and as ``start_kernel`` does.
        """
        new_ports = bool(kw.pop("newports", False))
        self._here()
        with self._lock:
            if self._launcher is None:
                raise RuntimeError("no kernel was started: call start_kernel first")
            launch = self._launcher.launch.updated({**self._own(), **kw})
            wait = self._order_launch(launch, now=now, new_ports=new_ports)
        wait()

    def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """Ask the kernel to exit, then signal it: SIGTERM after ``shutdown_wait_time`` s, SIGKILL 2 s later.

        ``now`` kills at once.  With ``restart`` the connection file and the hold
        on the ports stay.  No error if nothing runs; RuntimeError if it
        does not end even so.
        """
        session = self._here()
        if session is not None:
            patience = self.shutdown_wait_time
            self._stop(session, Farewell(restart=restart, keep_file=restart), patience, now=now)
            self._wait_stopped(session, patience)
        if not restart:
            self._retire()

    def request_shutdown(self, restart: bool = False) -> None:
        """Send a ``shutdown_request`` on control, and return; the kernel is not started again.

        What it executes is not interrupted, and no signal follows.  Returns once it
        has answered, after half a second at most.  No error if nothing runs.
        """
        if (session := self._here()) is not None:
            try:
                session.thread.call(session.request(restart=restart))
            except Gone:
                pass  # shut down by another thread meanwhile

    def finish_shutdown(self, waittime: float | None = 1, pollinterval: float = 0.1) -> None:  # noqa: ARG002
        """Wait ``waittime`` seconds for the end of the kernel, then signal it; sends no request.

        ``pollinterval`` has no effect: nothing is polled.
        """
        if (session := self._here()) is not None:
            patience = self.shutdown_wait_time if waittime is None else waittime
            self._stop(session, Farewell(ask=False, keep_file=True), patience)
            self._wait_stopped(session, patience)

    def cleanup(self, connection_file: bool = True) -> None:
        """Close sockets, let go of the ports, and remove the connection file unless told not to.

        May be repeated.  A kernel that runs goes on, and stays supervised.
        """
        session = self._here()
        if session is not None and session.is_managing:
            session.thread.call(session.let_go(connection_file=connection_file))
        else:
            self._retire(keep_file=not connection_file)

    def interrupt_kernel(self) -> None:
        """Interrupt what the kernel executes, in the way that its kernelspec asks for.

        One that is starting is interrupted once it is ready, at most 5 s
        later.  RuntimeError if nothing runs.
        """
        session = self._running()
        session.thread.call(session.interrupt())

    def signal_kernel(self, signum: int) -> None:
        """Send a signal to the process group; 0 only asks.  RuntimeError if nothing runs."""
        session = self._running()
        if signum != 0 and signum not in signal.valid_signals():
            raise ValueError(f"signum: {signum} is not a signal")
        session.thread.call(session.signal(int(signum)))

    def format_kernel_cmd(self, extra_arguments: Sequence[str] | None = None) -> list[str]:
        """The command as it is launched.  Raises NoSuchKernel."""
        launch = self._launch() if self._launcher is None else self._launcher.launch.updated(self._own())
        try:
            return launch.formatted(self._connection.path, extra_arguments)
        except LaunchError as error:
            raise launch.missing(error) from None

    def add_restart_callback(self, callback: Callback, event: str = "restart") -> None:
        """Have ``callback()`` called at each ``event``: "restart" before a relaunch, "dead" when given up.

        An ordered restart counts, too.  In a thread of their own, in order; what they raise is
        logged.  ValueError for another event.
        """
        self._here()
        self._callbacks.add(callback, event)

    def remove_restart_callback(self, callback: Callback, event: str = "restart") -> None:
        """Undo one ``add_restart_callback``; no error if there was none.  ValueError for another event."""
        self._here()
        self._callbacks.remove(callback, event)


def start_new_kernel(
    startup_timeout: float | None = 60, kernel_name: str = "python", **kw: Any
) -> tuple[KernelManager, BlockingKernelClient]:
    """Start a kernel, and return its manager and a client that is connected and ready.

    ``kw`` are those of ``start_kernel``.  RuntimeError if it is not ready
    within ``startup_timeout`` seconds (``None``: no limit); it is shut down then.
    For so long, and for a minute at least, it may also boot when it comes back.
    """
    patience = inf if startup_timeout is None else startup_timeout
    deadline = time.monotonic() + patience
    manager = KernelManager(
        kernel_name=kernel_name, settings={"start_timeout": max(_LEAST_PATIENCE, patience)}
    )
    client = None
    try:
        # Whatever ends this, Ctrl-C as well: a kernel that nobody can reach must not stay.
        manager.start_kernel(**kw)
        manager.wait_ready(patience)
        client = manager.client()
        client.start_channels()
        left = max(0.0, deadline - time.monotonic())
        client.wait_for_ready(timeout=None if left == inf else left)
    except BaseException as error:
        if client is not None:
            client.stop_channels()
        manager.shutdown_kernel(now=True)
        if isinstance(error, TimeoutError):
            raise RuntimeError(f"the kernel was not ready within {patience:g} s") from None
        raise
    return manager, client


@contextmanager
def run_kernel(**kw: Any) -> Iterator[BlockingKernelClient]:
    """A kernel for the length of a ``with`` block: gives its client, and shuts it down in any case.

    ``kw`` are those of ``start_new_kernel``.
    """
    manager, client = start_new_kernel(**kw)
    try:
        yield client
    finally:
        try:
            client.stop_channels()
        finally:
            manager.shutdown_kernel(now=True)
