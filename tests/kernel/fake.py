"""A kernel without a process, for tests of those who use one; it passes the contract suite."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from pathlib import Path

from supervisor.kernel.managerabc import KernelManagerABC

_IGNORED_BY_DEFAULT = {0, signal.SIGCHLD, signal.SIGCONT, signal.SIGSTOP, signal.SIGURG, signal.SIGWINCH}


class FakeKernel(KernelManagerABC):
    """Alive until a signal that it does not ignore, or until ``end``; ``signals`` are those received."""

    def __init__(self, *, ignores: Iterable[int] = (), files_to_cleanup: Iterable[Path] = ()) -> None:
        self.returncode: int | None = None
        self.signals: list[int] = []
        self._ignores = _IGNORED_BY_DEFAULT | set(ignores)
        self._files = list(files_to_cleanup)
        self._waiting: set[asyncio.Future[None]] = set()

    def end(self, returncode: int) -> None:
        """Exit by itself."""
        self.returncode = returncode
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def is_alive(self) -> bool:
        return self.returncode is None

    async def wait(self) -> bool:
        if self.returncode is None:
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
        return False

    async def signal(self, signum: int) -> None:
        if self.returncode is not None:
            raise ProcessLookupError
        self.signals.append(signum)
        if signum not in self._ignores:
            self.end(-signum)

    async def interrupt(self) -> None:
        await self.signal(signal.SIGINT)

    async def kill(self) -> None:
        if self.returncode is None:
            await self.signal(signal.SIGKILL)

    async def cleanup(self) -> None:
        for file in self._files:
            file.unlink(missing_ok=True)
