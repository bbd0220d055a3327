"""What a zygote forks, and nobody wants any more."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

from tests.warm.kept import PATIENCE, Kept


def test_a_spare_whose_supervisor_goes_while_it_boots_ends(tmp_path: Path) -> None:
    """Its first word has nobody to hear it."""
    kept = Kept(tmp_path, how="standby")
    try:
        kept.start()
        spare = kept.fork_spare()
        os.kill(spare.pid, signal.SIGSTOP)
        pidfd = os.dup(spare.pidfd)
        spare.close()
        os.kill(spare.pid, signal.SIGCONT)
        assert select.select([pidfd], [], [], PATIENCE)[0]
        os.close(pidfd)
    finally:
        kept.close()
