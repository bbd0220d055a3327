"""What a kernel tells its pages as the daemon's view of it changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor.jupyter.daemon import Daemon
from supervisor.jupyter.kernels import SupervisedKernel


class Heard:
    """A page that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def hear(self, channel: str, parts: list[bytes]) -> None:
        content = json.loads(parts[3])
        self.told.append(content.get("text") or content["execution_state"])


def view(phase: str, **more: Any) -> dict[str, Any]:
    return {"id": "x", "name": "a", "phase": phase, "generation": 1, "reason": "", **more}


@pytest.mark.parametrize(
    ("phase", "state", "told"),
    [
        ("waiting", "starting", []),
        ("backoff", "restarting", []),
        ("stopping", "restarting", []),
        ("stopped", "dead", ["a is stopped.\n", "dead"]),
        ("failed", "dead", ["a is failed.\n", "dead"]),
    ],
)
async def test_a_kernel_that_is_still_to_come_ends_no_page(phase: str, state: str, told: list[str]) -> None:
    kernel, page = SupervisedKernel(view("starting"), Daemon()), Heard()
    kernel.pages["session"] = page

    kernel.take(view(phase))

    assert (state, told) == (kernel.execution_state, page.told)
