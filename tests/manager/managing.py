"""Managers of the small kernel, shut down at the end of the test, and what their processes have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.manager import KernelManager
from tests.cli.tools import ROOT
from tests.kernels.using import MINI
from tests.waiting import DEADLINE, wait_for

Make = Callable[..., KernelManager]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes managers."""
    made: list[KernelManager] = []

    def new(**keywords: Any) -> KernelManager:
        made.append(KernelManager(**{"kernel_cmd": MINI, **keywords}))
        return made[-1]

    yield new
    for manager in made:
        manager.shutdown_kernel(now=True)


def ready(manager: KernelManager, **keywords: Any) -> KernelManager:
    """A manager whose kernel is started and ready."""
    manager.start_kernel(**keywords)
    manager.wait_ready(DEADLINE)
    return manager


def run_program(
    program: str, runtime_dir: Path, *flags: str, timeout: float = 60, **env: str
) -> subprocess.CompletedProcess[str]:
    """What came of a Python program that has managers of its own, in a process of its own."""
    return subprocess.run(
        [sys.executable, *flags, "-c", program],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "JUPYTER_RUNTIME_DIR": str(runtime_dir), "PYTHONPATH": str(ROOT), **env},
    )


def die(manager: KernelManager, signum: int = signal.SIGKILL) -> None:
    """End the kernel, and wait until its manager has another one, or has given it up."""
    pid = manager.pid
    assert pid is not None
    os.kill(pid, signum)
    wait_for(lambda: manager.pid not in (pid, None) or not manager.has_kernel)


def environment(manager: KernelManager) -> dict[str, str]:
    """The variables that the kernel was launched with."""
    file = Path(f"/proc/{manager.pid}/environ")
    wait_for(lambda: file.read_bytes() != b"")  # as it is for a moment after exec
    lines = file.read_bytes().decode().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def descriptors() -> set[str]:
    """What this process has open."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{fd.name} {fd.readlink()}")
        except OSError:
            continue  # the one that lists
    return found


def children() -> list[psutil.Process]:
    """The living children of this process: tests that share it have left zombies."""
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
