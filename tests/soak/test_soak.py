"""A short soak, always the same: ``make soak`` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.soak import Soak


@pytest.mark.timeout(400)
def test_after_random_orders_deaths_hangs_edits_and_dead_daemons_all_is_as_was_last_wanted(
    tmp_path: Path,
) -> None:
    soak = Soak(tmp_path, seed=7, kernels=12, seconds=15)

    soak.run()

    assert soak.counts["check"] >= 2
    assert soak.watch.looks > 10
    assert soak.counts["kill_daemon"] + soak.counts["detach"] + soak.counts["kill_daemon_at_its_start"] > 0
