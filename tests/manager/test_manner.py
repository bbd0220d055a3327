"""How a kernel is stopped where the caller wishes it otherwise: requests without signals."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.kernel.run import Run
from tests.kernels.using import MINI, mini
from tests.manager.managing import Make, ready, run_program
from tests.waiting import wait_for


def test_a_request_lets_a_busy_kernel_finish_what_it_executes(make: Make, tmp_path: Path) -> None:
    manager = ready(make())
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=30)
    go_on, done = tmp_path / "go-on", tmp_path / "done"
    client.execute(
        "import os, time\nprint('begun')\n"
        f"while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\nopen({str(done)!r}, 'w').close()"
    )
    wait_for(lambda: client.get_iopub_msg(timeout=30)["content"].get("execution_state") == "busy")

    manager.request_shutdown()
    go_on.touch()

    wait_for(lambda: not manager.has_kernel)
    client.stop_channels()
    assert done.exists()
    assert manager.last_exit is not None
    assert 0 == manager.last_exit.code


def test_a_request_is_on_its_way_when_it_returns(tmp_path: Path) -> None:
    program = f"""
import os
from supervisor.manager import KernelManager
manager = KernelManager(kernel_cmd={MINI!r})
manager.start_kernel(independent=True)
manager.wait_ready()
print(manager.pid, flush=True)
manager.request_shutdown()
os._exit(0)
"""
    done = run_program(program, tmp_path)
    assert 0 == done.returncode, done.stderr
    pid = int(done.stdout)

    try:
        wait_for(lambda: not psutil.pid_exists(pid))
    finally:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("answers", "patience"), [(True, 30.0), (False, 0.1)])
def test_a_request_returns_when_it_is_answered_or_takes_too_long(
    make: Make, monkeypatch: pytest.MonkeyPatch, *, answers: bool, patience: float
) -> None:
    ask, asked, go_on = Run.ask_to_exit, list[bool](), threading.Event()

    async def slowly(run: Run, **keywords: Any) -> None:
        await asyncio.to_thread(go_on.wait, 0.1 if answers else 60)
        await ask(run, **keywords)
        asked.append(True)

    monkeypatch.setattr("supervisor.manager.own.REQUEST_PATIENCE", patience)
    monkeypatch.setattr(Run, "ask_to_exit", slowly)
    manager = ready(make())

    try:
        manager.request_shutdown()
        assert [True] * answers == asked
    finally:
        go_on.set()


@pytest.mark.parametrize("flags", [("--deaf",), ("--start-delay", "0.2")])
def test_a_request_to_a_kernel_that_boots_is_no_error(make: Make, flags: tuple[str, ...]) -> None:
    manager = make(kernel_cmd=mini(*flags))
    manager.start_kernel()

    manager.request_shutdown()
    manager.finish_shutdown(waittime=0.5)

    assert (False, False) == (manager.has_kernel, manager.is_alive())
