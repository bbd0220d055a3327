"""What a kernel tells its pages as the daemon's view of it changes."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.jupyter.daemon import Daemon
from supervisor.jupyter.kernels import SupervisedKernel


class Ended:
    """A page that keeps the ends it was told of."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def end_run(self, reason: str, status: str) -> None:
        self.told.append(f"{status}: {reason}")


def view(phase: str, **more: Any) -> dict[str, Any]:
    return {"id": "x", "name": "a", "phase": phase, "generation": 1, "reason": "", **more}


@pytest.mark.parametrize(
    ("phase", "state", "told"),
    [
        ("waiting", "starting", []),
        ("backoff", "restarting", []),
        ("stopping", "restarting", []),
        ("stopped", "dead", ["dead: a is stopped."]),
        ("failed", "dead", ["dead: a is failed."]),
    ],
)
async def test_a_kernel_that_is_still_to_come_ends_no_page(phase: str, state: str, told: list[str]) -> None:
    kernel, page = SupervisedKernel(view("starting"), Daemon(), None), Ended()
    kernel.pages.add(page)  # type: ignore[arg-type]

    kernel.take(view(phase))

    assert (state, told) == (kernel.execution_state, page.told)
