"""How soon kernels are back that are begun warm, beside a bare loop that starts them again.

Owns one daemon with kernels of each kind.  Asks as a client that reconnects at once, with the grace off.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.asking import address, wait_answers
from benchmarks.contestants import ROOT
from benchmarks.processes import wait_until

KINDS = ("off", "prepared", "fork", "standby")
TIMEOUT = 60.0
REST = 0.3  # seconds in which a spare is surely looked for

Samples = dict[str, list[float]]


class BareLoop:
    """``while true; do kernel; done``, for each of some connection files."""

    def __init__(self, python: str, directory: Path, count: int, lines: str) -> None:
        self.files = [directory / f"bare-{number}.json" for number in range(count)]
        self._words = [f"--IPKernelApp.exec_lines={lines}"] if lines else []
        self._python, self._is_over = python, False
        self.running: dict[Path, subprocess.Popen[bytes]] = {}
        for file in self.files:
            self._start(file)
            threading.Thread(target=self._keep, args=(file,), daemon=True).start()

    def _start(self, file: Path) -> None:
        command = [self._python, "-m", "ipykernel_launcher", "-f", str(file), *self._words]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.running[file] = subprocess.Popen(command, **quiet)  # type: ignore[call-overload]

    def _keep(self, file: Path) -> None:
        while not self._is_over:
            self.running[file].wait()
            if not self._is_over:
                self._start(file)

    def close(self) -> None:
        self._is_over = True
        for process in self.running.values():
            process.kill()
            process.wait()


@contextmanager
def daemon(
    directory: Path, python: str, kinds: Sequence[str], count: int, modules: Sequence[str]
) -> Iterator[Path]:
    """A daemon with so many kernels of each kind; its configuration."""
    argv = json.dumps([python, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    startup = json.dumps("".join(f"import {module}\n" for module in modules) or "pass")
    text = f'[supervisor]\nstate_dir = "state"\nruntime_dir = "run"\nmax_concurrent_starts = {count + 4}\n'
    text += f"[defaults]\nargv = {argv}\nstartup = {startup}\nmax_restarts = 0\nreconnect_grace = 0.0\n"
    text += "restart_window = 0.001\nbackoff = { initial = 0.0, next = 0.0, jitter = 0.0 }\n"
    for kind in kinds:
        preload = json.dumps(modules if kind in ("fork", "standby") else ())
        for number in range(count):
            text += f'[kernels.{kind}-{number}]\nwarm_start = "{kind}"\npreload = {preload}\n'
    config = directory / "kernels.toml"
    config.write_text(text)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor", "run", str(config)], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        yield config
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT)


def status(config: Path) -> dict[str, dict[str, Any]]:
    """The kernels as the daemon tells them."""
    command = [sys.executable, "-m", "supervisor", "status", "--json", "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {view["name"]: view for view in json.loads(done.stdout or '{"kernels": []}')["kernels"]}


def comebacks(
    directory: Path, count: int, rounds: int, modules: Sequence[str] = (), python: str = sys.executable
) -> Samples:
    """Seconds from the SIGKILL of ``count`` kernels to the last answer, by kind, kinds interleaved."""
    found: Samples = {kind: [] for kind in ("bare", *KINDS)}
    with daemon(directory, python, KINDS, count, modules) as config:
        wait_until(lambda: _are_up(config, count * len(KINDS)), TIMEOUT * 2, "all kernels run", 0.5)
        files = {
            kind: [directory / "run" / f"kernel-{kind}-{n}.json" for n in range(count)] for kind in KINDS
        }
        files["bare"] = [directory / f"bare-{number}.json" for number in range(count)]
        for number, file in enumerate(files["bare"]):
            _renamed(files["off"][number], file, number)
        bare = BareLoop(python, directory, count, "; ".join(f"import {module}" for module in modules))
        try:
            wait_answers([address(file) or {} for file in files["bare"]], TIMEOUT)
            for _ in range(rounds):
                for kind in found:
                    _wait_spares(config, kind)
                    views = status(config)
                    pids = [p.pid for p in bare.running.values()] if kind == "bare" else []
                    pids += [view["pid"] for name, view in views.items() if name.rpartition("-")[0] == kind]
                    found[kind].append(_time(pids, [address(file) or {} for file in files[kind]]))
        finally:
            bare.close()
    return found


def _time(pids: Sequence[int], addresses: list[dict[str, object]]) -> float:
    begin = time.perf_counter()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return wait_answers(addresses, TIMEOUT) - begin


def _are_up(config: Path, count: int) -> bool:
    return count == sum(view["phase"] == "running" for view in status(config).values())


def _wait_spares(config: Path, kind: str) -> None:
    """Until each kernel of the kind runs, and a spare has had the time to be parked."""
    wait_until(lambda: all(v["phase"] == "running" for v in status(config).values()), TIMEOUT, "all run", 0.1)
    if kind == "standby":
        events = config.parent / "state" / "events.jsonl"

        def parked() -> bool:
            lines = [json.loads(line) for line in events.read_text().splitlines()]
            last = {
                one["kernel"]: one["event"] for one in lines if one.get("kernel", "").startswith("standby")
            }
            return all(event == "standby.ready" for event in last.values())

        wait_until(parked, TIMEOUT, "spares are parked", 0.1)
    time.sleep(REST)


def _renamed(source: Path, file: Path, number: int) -> None:
    """A connection file of other ports."""
    about = address(source) or {}
    ports = {
        f"{name}_port": 21000 + 10 * number + at
        for at, name in enumerate(("shell", "iopub", "stdin", "control", "hb"))
    }
    file.write_text(json.dumps({**about, **ports}))
