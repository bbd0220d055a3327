"""The interface of one run of a kernel, whoever started it.

Owns the contract, as jupyter_kernel_mgmt published it, sharpened where that
left a choice; ``tests/kernel/test_managerabc.py`` is the same contract as tests.
Does nothing itself.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod


class KernelManagerABC(ABC):
    """One run of a kernel: born alive, dies once.

    Offers no communication with the kernel, and never starts it again.
    """

    _kernel_id: str | None = None

    @property
    def kernel_id(self) -> str:
        """The id associated with the kernel: its declared name if it has one, else a UUID."""
        if self._kernel_id is None:
            self._kernel_id = str(uuid.uuid4())
        return self._kernel_id

    @kernel_id.setter
    def kernel_id(self, kernel_id: str) -> None:
        self._kernel_id = kernel_id

    @abstractmethod
    async def is_alive(self) -> bool:
        """Check whether the kernel is alive: its process exists and has not ended."""

    @abstractmethod
    async def wait(self) -> bool:
        """Wait for the kernel's process to exit.

        Returns True if the kernel is still alive after waiting, False if it
        exited (like ``is_alive()``).  Several tasks may wait at a time, and each
        may be cancelled, for instance by a time-out.
        """

    @abstractmethod
    async def signal(self, signum: int) -> None:
        """Send a signal to the kernel and the children in its process group.

        Raises ProcessLookupError after the end of the kernel.
        """

    @abstractmethod
    async def interrupt(self) -> None:
        """Interrupt the kernel by a signal or a similar event.

        Kernels can ask to be interrupted by a message instead; that is the
        business of whoever has a client.  Raises as ``signal`` does.
        """

    @abstractmethod
    async def kill(self) -> None:
        """End the kernel by force, and wait until it has ended.

        This is for a kernel that does not shut down.  One that works should be
        sent a ``shutdown_request``, and given time to clean up.  Killing a
        kernel that has ended is no error.
        """

    async def cleanup(self) -> None:  # noqa: B027 - having nothing to clean up is fine
        """Remove what belongs to the run, such as files.  May be repeated."""
