"""How fast the daemon and its command line answer, from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from jupyter_client.blocking.client import BlockingKernelClient

from benchmarks.contestants import BOOT, ROOT, Ours, program
from benchmarks.processes import wait_until
from supervisor.control.client import Client

FLOOR = [sys.executable, "-c", "import argparse, http.client, json"]

_STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        time.sleep(3600)
    except BaseException:
        pass
"""


def _seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return time.perf_counter() - begin


def status(directory: Path, count: int, rounds: int) -> dict[str, list[float]]:
    """``status`` as a whole process, and an interpreter that does little more than import."""
    daemon = Ours(directory, count)
    try:
        daemon.begin()
        daemon.wait_ready()
        commands = {"status": [*program(), "status", "--config", str(daemon.config)], "floor": FLOOR}
        found: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, command in commands.items():
                seconds = _seconds(command)
                if number:  # the first one fills the caches
                    found[name].append(seconds)
        return found
    finally:
        daemon.end()


def orders(directory: Path, rounds: int) -> list[float]:
    """An order to one kernel while another, which ignores everything, is being stopped."""
    daemon = Ours(directory, 2)
    try:
        daemon.begin()
        daemon.wait_ready()
        door = Client([daemon.directory / "state/control.sock"])
        wait_until(lambda: all(kernel["phase"] == "running" for kernel in _kernels(door)), BOOT, "running")
        _make_stubborn(daemon.files[0])
        door.ask("POST", "/v1/kernels/k00/stop", {"wait": False})
        found = []
        for number in range(rounds):
            # Without its outcome: that of an interrupt shows after a while only.
            what = ("interrupt", "start", "restart")[number % 3]
            begin = time.perf_counter()
            answer = door.ask("POST", f"/v1/kernels/k01/{what}", {"wait": False})
            found.append(time.perf_counter() - begin)
            assert not answer.is_error, answer.body
            wait_until(lambda: _kernels(door)[1]["phase"] == "running", BOOT, "k01 runs", 0.01)
            if _kernels(door)[0]["phase"] != "stopping":
                break
        assert len(found) > 2, "the stubborn kernel was stopped before there was anything to measure"
        return found
    finally:
        daemon.end()


def _kernels(door: Client) -> list[dict[str, str]]:
    kernels: list[dict[str, str]] = door.ask("GET", "/v1/status").body["kernels"]
    return kernels


def _make_stubborn(connection_file: Path) -> None:
    client = BlockingKernelClient(connection_file=str(connection_file))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=BOOT)
        client.execute(_STUBBORN)
        wait_until(lambda: _is_executing(client), BOOT, "the stubborn kernel executes")
    finally:
        client.stop_channels()


def _is_executing(client: BlockingKernelClient) -> bool:
    message = client.get_iopub_msg(timeout=BOOT)
    return bool(message["msg_type"] == "execute_input" and "SIG_IGN" in message["content"]["code"])
