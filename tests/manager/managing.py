"""Managers of the small kernel, shut down at the end of the test, and what their processes have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.manager import KernelManager
from tests.kernels.using import MINI
from tests.waiting import wait_for

Make = Callable[..., KernelManager]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes managers."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    made: list[KernelManager] = []

    def new(**keywords: Any) -> KernelManager:
        made.append(KernelManager(**{"kernel_cmd": MINI, **keywords}))
        return made[-1]

    yield new
    for manager in made:
        manager.shutdown_kernel(now=True)


def environment(manager: KernelManager) -> dict[str, str]:
    """The variables that the kernel was launched with."""
    file = Path(f"/proc/{manager.pid}/environ")
    wait_for(lambda: file.read_bytes() != b"")  # as it is for a moment after exec
    lines = file.read_bytes().decode().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def is_ready(client: Any) -> bool:
    """Whether a client of jupyter_client is; to be asked wait_for it is so."""
    try:
        client.wait_for_ready(timeout=30)
    except RuntimeError:  # its heart beats again a moment later than the kernel's
        return False
    return True
