"""A run of a kernel that is known by its identity only, since another process started it.

Owns nothing but a pidfd.  Never reaps: that is its parent's business.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from supervisor.core.model import ProcessId
from supervisor.kernel.local import LocalKernel
from supervisor.process.exit import stranger_returncode, stranger_wait_status
from supervisor.process.identity import identify, is_running


class AdoptedKernel(LocalKernel):
    """Manages a kernel that somebody else started, an earlier supervisor for instance.

    ``process`` is its identity, verified here: ProcessLookupError if that
    process is gone, whoever has its pid now.  A zombie is a kernel that has
    exited.  ``returncode`` stays ``None`` where the system does not tell how
    strangers ended (Linux before 6.15, other systems).
    """

    def __init__(
        self,
        process: ProcessId,
        *,
        kernel_id: str | None = None,
        files_to_cleanup: Iterable[str | os.PathLike[str]] | None = None,
    ) -> None:
        super().__init__(process.pid, process, kernel_id, files_to_cleanup)
        self._identity = process
        self._hold(process)
        if self._pidfd is None and identify(process.pid) != process:
            raise ProcessLookupError(f"process {process.pid} has ended")

    def _look(self) -> bool:
        if self._ended:
            return True
        if self._pidfd is None:
            return not is_running(self._identity)
        if not self._is_over():
            return False
        # Later, if its parent has not reaped it yet.
        if (returncode := stranger_wait_status(self._pidfd)) is not None:
            self._finish(returncode)
        return True

    async def _settle(self) -> None:
        if self._pidfd is None:
            self._finish(None)
            return
        own = os.dup(self._pidfd)  # another task may be done earlier and close the one we hold
        try:
            returncode = await stranger_returncode(own)
        finally:
            os.close(own)
        self._finish(returncode)
