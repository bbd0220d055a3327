"""The manager with real ipykernels and stock clients."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor import KernelManager, run_kernel, start_new_kernel
from supervisor.core.model import Cause
from supervisor.manager.thread import LoopThread, Work
from tests.kernels.using import MINI, is_ready, mini
from tests.manager.managing import children
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return tmp_path


@pytest.fixture
def started() -> Iterator[tuple[KernelManager, Any]]:
    manager, client = start_new_kernel()
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def value(client: Any, expression: str) -> str:
    """What the kernel answers, once client and kernel have found each other (again)."""
    wait_for(lambda: is_ready(client))
    reply = client.execute_interactive(
        "", user_expressions={"x": expression}, timeout=30, store_history=False
    )
    return str(reply["content"]["user_expressions"]["x"]["data"]["text/plain"])


def test_a_new_kernel_comes_with_its_manager_and_a_client_that_is_ready(
    started: tuple[KernelManager, Any],
) -> None:
    manager, client = started

    assert manager.is_alive() is True
    assert str(manager.pid) == value(client, "__import__('os').getpid()")
    assert manager.kernel_name == "python"
    assert "python3" == json.loads(Path(manager.connection_file).read_text())["kernel_name"]


def test_restarts_keep_address_file_and_client(started: tuple[KernelManager, Any]) -> None:
    manager, client = started
    file = Path(manager.connection_file)
    before, pids = file.read_bytes(), [manager.pid]

    for turn in range(4):
        manager.restart_kernel(now=turn % 2 == 0)
        assert before == file.read_bytes()
        pids.append(manager.pid)
        if turn % 2:
            assert str(manager.pid) == value(client, "__import__('os').getpid()")

    assert 5 == len(set(pids))


def test_a_kernel_that_is_killed_comes_back_for_its_client(started: tuple[KernelManager, Any]) -> None:
    manager, client = started
    told: list[Any] = []
    manager.add_restart_callback(lambda: told.append(manager.last_exit))
    file, pid = Path(manager.connection_file), manager.pid
    before = file.read_bytes()
    assert pid is not None

    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: manager.pid not in (pid, None))
    manager.wait_ready()

    assert str(manager.pid) == value(client, "__import__('os').getpid()")
    assert before == file.read_bytes()
    assert [(Cause.KILLED, None, "SIGKILL")] == [(each.cause, each.code, each.signal) for each in told]


def test_a_kernel_that_exits_by_itself_tells_its_code(started: tuple[KernelManager, Any]) -> None:
    manager, client = started
    told: list[Any] = []
    manager.add_restart_callback(lambda: told.append(manager.last_exit))

    client.execute("import os; os._exit(7)")

    wait_for(lambda: told)
    assert (Cause.EXITED, 7, None) == (told[0].cause, told[0].code, told[0].signal)


def test_an_interrupt_ends_a_loop(started: tuple[KernelManager, Any]) -> None:
    manager, client = started
    pid = manager.pid
    client.execute("print('begun')\nwhile True: pass")
    wait_for(lambda: client.get_iopub_msg(timeout=30)["msg_type"] == "stream")

    manager.interrupt_kernel()

    wait_for(lambda: client.get_shell_msg(timeout=30)["content"].get("ename") == "KeyboardInterrupt")
    assert pid == manager.pid


def test_run_kernel_leaves_nothing_even_by_exception(runtime_dir: Path) -> None:
    used: list[Any] = []

    def use() -> None:
        with run_kernel(kernel_name="python3") as client:
            used.extend([client, int(value(client, "__import__('os').getpid()"))])
            assert 1 == len(list(runtime_dir.glob("kernel-*.json")))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()

    client, pid = used
    assert not psutil.pid_exists(pid)
    assert [] == list(runtime_dir.glob("kernel-*.json"))
    assert not client.channels_running


def test_a_start_that_takes_too_long_is_a_runtime_error_and_leaves_nothing(runtime_dir: Path) -> None:
    with pytest.raises(RuntimeError, match=r"not ready within 0\.3 s"):
        start_new_kernel(startup_timeout=0.3, kernel_cmd=mini("--deaf"))

    assert [] == list(runtime_dir.glob("kernel-*.json"))
    assert [] == children()


@pytest.mark.parametrize(("given", "start_timeout"), [(300, 300.0), (None, inf), (30, 60.0)])
def test_a_kernel_may_boot_for_as_long_as_its_caller_is_patient(
    given: float | None, start_timeout: float
) -> None:
    # The manager is ours to end, whatever is asserted.
    manager, client = start_new_kernel(startup_timeout=given, kernel_cmd=MINI)
    try:
        kernel = manager._carrier.kernel  # type: ignore[union-attr]
        assert kernel is not None
        assert kernel.declared is not None
        assert start_timeout == kernel.declared.start_timeout
        assert manager.is_alive() is True
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_run_kernel_takes_no_limit_either() -> None:
    with run_kernel(startup_timeout=None, kernel_cmd=MINI) as client:
        assert client.is_alive()


def test_ctrl_c_during_the_launch_leaves_no_kernel(
    runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = LoopThread.begin

    def interrupted(thread: LoopThread, work: Work[Any]) -> Any:
        begun = begin(thread, work)
        if work.__qualname__ == "KernelManager._launched":
            begun.result()
            raise KeyboardInterrupt
        return begun

    monkeypatch.setattr(LoopThread, "begin", interrupted)

    with pytest.raises(KeyboardInterrupt):
        start_new_kernel(kernel_cmd=MINI)

    assert [] == children()
    assert [] == list(runtime_dir.glob("kernel-*.json"))


def test_a_kernel_that_dies_at_its_start_is_a_runtime_error(runtime_dir: Path) -> None:
    with pytest.raises(RuntimeError, match="not ready within 1 s"):
        start_new_kernel(startup_timeout=1, kernel_cmd=["false"])
    manager = KernelManager(kernel_cmd=["false"], settings={"max_restarts": 1, "backoff": {"next": 0.0}})
    manager.start_kernel()
    with pytest.raises(RuntimeError, match="given up: died 2 times"):
        manager.wait_ready(20)
    manager.cleanup()
    with pytest.raises(RuntimeError, match="no kernel is running"):
        manager.wait_ready()

    assert [] == list(runtime_dir.glob("kernel-*.json"))
