"""A run of a kernel that is a child of ours.

Owns the child: reaps it, once, and learns its exit status, also when somebody
else waits for the same process object.  Never starts it, and never starts it again.
"""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

from supervisor.core.model import ProcessId
from supervisor.kernel.local import LocalKernel
from supervisor.process.exit import stranger_wait_status
from supervisor.process.identity import identify, is_running

# How long whoever reaps the ended child may take to tell its exit status, in seconds.
_REAPER_PATIENCE = 2.0
# The same for an asyncio process whose event loop is not the running one, and perhaps closed.
_OTHER_LOOP_PATIENCE = 0.2


class KernelManager(LocalKernel):
    """Manages a single kernel in a subprocess on this host.

    ``popen`` is the process with the started kernel, of either kind; one that
    has ended already is a kernel that has exited.  ``files_to_cleanup`` are
    removed by ``cleanup``.  ``win_interrupt_evt`` is the handle that
    ``interrupt`` sets on Windows; not used elsewhere.  ``kernel_id`` is a new
    UUID unless given.

    Start the kernel in a session of its own (``start_new_session=True``): only then do
    signals reach its children as well.
    """

    def __init__(
        self,
        popen: subprocess.Popen[Any] | asyncio.subprocess.Process,
        files_to_cleanup: Iterable[str | os.PathLike[str]] | None = None,
        win_interrupt_evt: Any = None,
        *,
        kernel_id: str | None = None,
    ) -> None:
        process = _identify(popen)
        super().__init__(popen.pid, process, kernel_id, files_to_cleanup)
        self.kernel = popen
        self.win_interrupt_evt = win_interrupt_evt
        self.async_subprocess = isinstance(popen, asyncio.subprocess.Process)
        self._home = _running_loop()
        self._lost = False
        if popen.returncode is not None:
            self._finish(popen.returncode)
        elif process is not None:
            try:
                self._hold(process)
            except ProcessLookupError:
                self._lost = True
        elif sys.platform != "win32":
            self._lost = True

    def _look(self) -> bool:
        if self._ended:
            return True
        if self._pidfd is not None and not self._is_over():
            return False
        returncode = self._ask()
        if returncode is not None:
            self._note(returncode)
            return True
        if self._pidfd is None and self._process is not None:
            return not is_running(self._process)
        return self._pidfd is not None or self._lost

    async def _settle(self) -> None:
        at_home = not self.async_subprocess or self._home is asyncio.get_running_loop()
        deadline = time.monotonic() + (_REAPER_PATIENCE if at_home else _OTHER_LOOP_PATIENCE)
        pause = 0.0
        while not self._ended:
            if (returncode := self._ask()) is not None:
                self._note(returncode)
            elif time.monotonic() >= deadline:
                self._note(self._reap())
            else:
                await asyncio.sleep(pause)
                pause = min(pause + 0.001, 0.02)

    def _ask(self) -> int | None:
        """The return code as far as it is told by now; reaps the child if that is to be done here."""
        if not isinstance(self.kernel, asyncio.subprocess.Process) and self._is_ours_to_reap():
            return self.kernel.poll()
        if self.kernel.returncode is None and not self.async_subprocess:
            return self._ask_pidfd()
        return self.kernel.returncode  # asyncio reaps, or somebody has

    def _is_ours_to_reap(self) -> bool:
        if self.kernel.returncode is not None or not hasattr(os, "waitid"):
            return True
        # Popen.poll() takes a child that somebody else has reaped for one that exited with 0.
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def _ask_pidfd(self) -> int | None:
        return None if self._pidfd is None else stranger_wait_status(self._pidfd)

    def _reap(self) -> int | None:
        """Reap a child that nobody has reaped, since its event loop is gone; ``None`` if somebody has."""
        try:
            if self._process is None or identify(self.pid) != self._process:
                return None
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except OSError:
            return None
        return os.waitstatus_to_exitcode(status) if pid else None

    def _note(self, returncode: int | None) -> None:
        # asyncio says 255 of a child that somebody else has reaped; the pidfd knows better.
        told = self._ask_pidfd()
        self._finish(returncode if told is None else told)

    def _send(self, signum: int) -> None:
        if sys.platform == "win32" or self._process is None:
            self.kernel.send_signal(signum)
        else:
            super()._send(signum)

    async def interrupt(self) -> None:
        """Send SIGINT to the process group; on Windows, set the event.  Raises as ``signal`` does."""
        if sys.platform == "win32":
            from jupyter_client.win_interrupt import send_interrupt

            send_interrupt(self.win_interrupt_evt)
        else:
            await super().interrupt()

    async def _kill(self) -> None:
        if sys.platform == "win32":
            self.kernel.kill()
        else:
            await super()._kill()


def _identify(popen: subprocess.Popen[Any] | asyncio.subprocess.Process) -> ProcessId | None:
    if popen.returncode is not None:  # reaped: the pid may be another process's by now
        return None
    try:
        return identify(popen.pid)
    except OSError:
        return None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
