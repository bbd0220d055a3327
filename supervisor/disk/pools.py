"""The threads that the kernels of one host share.

Owns them.  Knows nothing of what is done there.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

RECORD_THREADS = 4
# Made as they are needed; no more launches are under way at a time than the settings allow.
LAUNCH_THREADS = 64


class Pools:
    """``records`` writes them; ``launches`` makes processes.

    Those who make processes last: a process may have asked to be ended with the
    very thread that made it (PR_SET_PDEATHSIG, prctl(2)), as ``bwrap --die-with-parent`` does.
    """

    def __init__(self) -> None:
        self.records = ThreadPoolExecutor(RECORD_THREADS, "records")
        self.launches = ThreadPoolExecutor(LAUNCH_THREADS, "launches")

    def close(self) -> None:
        """Begin nothing any more; what is under way goes on."""
        self.records.shutdown(wait=False)
        self.launches.shutdown(wait=False)
