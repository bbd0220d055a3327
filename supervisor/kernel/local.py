"""What all runs of a kernel on this machine have in common, children and strangers alike.

Owns the pidfd that is held from the first moment to the end of the process,
and the files to remove afterwards.  How an exit status is learnt differs, and
is left to ``subproc`` and ``adopted``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import weakref
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

from supervisor.core.model import ProcessId
from supervisor.kernel.managerabc import KernelManagerABC
from supervisor.process.exit import wait_exit, wait_exit_alone
from supervisor.process.group import signal_group
from supervisor.process.identity import has_ended, open_pidfd

log = logging.getLogger(__name__)

KILL_TIMEOUT = 5.0
_LOOK_INTERVAL = 0.05  # seconds, where there is no pidfd


class LocalKernel(KernelManagerABC):
    """A kernel whose process is one of this machine."""

    def __init__(
        self,
        pid: int,
        process: ProcessId | None,
        kernel_id: str | None,
        files_to_cleanup: Iterable[str | os.PathLike[str]] | None,
    ) -> None:
        if kernel_id is not None:
            self.kernel_id = kernel_id
        self._pid = pid
        self._process = process
        self.files_to_cleanup = [Path(file) for file in files_to_cleanup or ()]
        self.log = log
        self._ended = False
        self._returncode: int | None = None
        self._pidfd: int | None = None
        self._is_watched = False
        self._release: weakref.finalize[[int], LocalKernel] | None = None

    @property
    def pid(self) -> int:
        """The pid, which belongs to another process some time after the end."""
        return self._pid

    @property
    def process(self) -> ProcessId | None:
        """The identity of the process; ``None`` if it was gone before it could be told."""
        return self._process

    @property
    def returncode(self) -> int | None:
        """As of ``Popen``: the exit code, or minus the signal; ``None`` until the end, or if unknown.

        Once ``wait`` has returned it does not change any more.
        """
        self._look()
        return self._returncode

    @abstractmethod
    def _look(self) -> bool:
        """Whether the process has ended; takes note of its exit status if that is known by now."""

    @abstractmethod
    async def _settle(self) -> None:
        """After the end: take note of the exit status, waiting a moment for it if need be."""

    async def is_alive(self) -> bool:
        """Check whether the process exists and has not ended; a zombie has."""
        return not self._look()

    async def wait(self) -> bool:
        """Wait for the end of the process, and return False.

        Several tasks may wait at a time, and be cancelled.  On Linux this costs nothing
        meanwhile and returns at once; elsewhere it looks 20 times a second.
        """
        if self._pidfd is not None:
            await (wait_exit if self._is_watched else self._watch)(self._pidfd)
        else:
            while not self._look():  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(_LOOK_INTERVAL)
        await self._settle()
        return False

    async def _watch(self, pidfd: int) -> None:
        """Wait with the pidfd itself, as the first task that waits: each other one has its own."""
        self._is_watched = True
        try:
            await wait_exit_alone(pidfd)
        finally:
            self._is_watched = False
            if self._pidfd is None:
                self._let_go()

    async def signal(self, signum: int) -> None:
        """Send a signal to the process group, or to the process if it leads none.

        Raises ProcessLookupError after the end.
        """
        if self._look():
            raise ProcessLookupError(f"kernel {self.kernel_id} has ended")
        self._send(signum)

    def _send(self, signum: int) -> None:
        assert self._process is not None, "a process that lives has an identity"
        signal_group(self._process, signum)

    async def interrupt(self) -> None:
        """Send SIGINT to the process group.  Raises as ``signal`` does."""
        await self.signal(signal.SIGINT)

    async def kill(self) -> None:
        """Send SIGKILL to the process group and wait for the end of the process.

        After 5 seconds, as with a process that hangs in a system call, the log
        says so instead.  No error if it has ended.
        """
        try:
            await self._kill()
        except ProcessLookupError:
            pass
        try:
            async with asyncio.timeout(KILL_TIMEOUT):
                await self.wait()
        except TimeoutError:
            log.warning(
                "kernel %s: pid %d has not ended %g s after SIGKILL", self.kernel_id, self.pid, KILL_TIMEOUT
            )

    async def _kill(self) -> None:
        await self.signal(signal.SIGKILL)

    async def cleanup(self) -> None:
        """Remove the files and close the pidfd; the process itself is left as it is."""
        self._let_go()
        for file in self.files_to_cleanup:
            try:
                file.unlink()
            except FileNotFoundError:
                pass
            except OSError as error:
                log.warning("kernel %s: cannot remove %s: %s", self.kernel_id, file, error.strerror)

    def _hold(self, process: ProcessId) -> None:
        """Open the pidfd; without one the process is looked at from time to time.

        Raises ProcessLookupError if the process is gone.
        """
        try:
            pidfd = open_pidfd(process)
        except ProcessLookupError:
            raise
        except OSError as error:
            log.debug("kernel %s: no pidfd: %s", self.kernel_id, error.strerror)
            return
        self._pidfd = pidfd
        self._release = weakref.finalize(self, os.close, pidfd)
        # Not at the exit of the program, which may come before the end of a kernel is waited for.
        self._release.atexit = False

    def _let_go(self) -> None:
        self._pidfd = None
        if self._release is not None and not self._is_watched:
            self._release()

    def _is_over(self) -> bool:
        """Whether the held pidfd says that the process has ended."""
        return self._pidfd is not None and has_ended(self._pidfd)

    def _finish(self, returncode: int | None) -> None:
        """Take note of the end; only the first note counts."""
        if not self._ended:
            self._ended = True
            self._returncode = returncode
        self._let_go()
