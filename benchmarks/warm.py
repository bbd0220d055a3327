"""What kernels that are begun warm give and cost, beside a bare loop that starts them again.

Owns one daemon with kernels of some kinds.  Asks as a client that reconnects at once, with the grace off;
but for ``stock``, whose clients and settings are as they come.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient

from benchmarks.asking import address, wait_answers
from benchmarks.contestants import CHANNELS, ROOT, free_port
from benchmarks.processes import PROC, is_alive, proportional, wait_until
from supervisor.records.record import MARK_VARIABLE

KINDS = ("off", "prepared", "fork", "standby")
TIMEOUT = 300.0  # seconds, on a machine on which others work
REST = 0.3  # seconds in which a spare is surely looked for
CLIENTS = 4
# What a stock client is to see of one cell.
OUTPUT = "".join(f"line {number}\n" for number in range(50))

Samples = dict[str, list[float]]


class BareLoop:
    """``while true; do kernel; done``, for each of some connection files."""

    def __init__(self, python: str, directory: Path, count: int, lines: str) -> None:
        self.files = [directory / f"bare-{number}.json" for number in range(count)]
        for file in self.files:
            ports = {f"{channel}_port": free_port() for channel in CHANNELS}
            about = {"transport": "tcp", "ip": "127.0.0.1", "signature_scheme": "hmac-sha256", "key": "bare"}
            file.write_text(json.dumps({**ports, **about}))
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
    directory: Path,
    kinds: Sequence[str],
    count: int,
    modules: Sequence[str],
    *,
    python: str = sys.executable,
    grace: float = 0.0,
) -> Iterator[Path]:
    """A daemon with so many kernels of each kind; its configuration."""
    directory.mkdir(exist_ok=True)
    argv = json.dumps([python, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    startup = json.dumps("".join(f"import {module}\n" for module in modules) or "pass")
    text = f'[supervisor]\nstate_dir = "state"\nruntime_dir = "run"\nmax_concurrent_starts = {count + 4}\n'
    text += f"[defaults]\nargv = {argv}\nstartup = {startup}\nmax_restarts = 0\nreconnect_grace = {grace}\n"
    text += "restart_window = 0.001\nbackoff = { initial = 0.0, next = 0.0, jitter = 0.0 }\n"
    for kind in kinds:
        preload = json.dumps(modules if kind in ("fork", "standby") else ())
        for number in range(count):
            text += f'[kernels.{kind}-{number}]\nwarm_start = "{kind}"\npreload = {preload}\n'
    config = directory / "kernels.toml"
    config.write_text(text)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "supervisor", "run", str(config)],
            cwd=ROOT,
            env=os.environ | {"WARM": str(directory)},
            stdout=log,
            stderr=log,
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


def _wait_warm(config: Path, count: int) -> None:
    """Until so many kernels run, those that are to be forked by a fork: imports may take long at first."""
    wait_until(lambda: _are_up(config, count), TIMEOUT * 2, "all kernels run", 0.5)
    while cold := [
        name
        for name, view in status(config).items()
        if name.startswith(("fork", "standby")) and view["begun"]["how"] == "prepared"
    ]:
        command = [sys.executable, "-m", "supervisor", "restart", "--now", "--config", str(config), *cold]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def comebacks(
    directory: Path, count: int, rounds: int, modules: Sequence[str] = (), kinds: Sequence[str] = KINDS
) -> Samples:
    """Seconds from the SIGKILL of ``count`` kernels to the last answer, by kind, kinds interleaved."""
    found: Samples = {kind: [] for kind in ("bare", *kinds)}
    with daemon(directory, kinds, count, modules) as config:
        _wait_warm(config, count * len(kinds))
        files = {kind: _files(directory, kind, count) for kind in kinds}
        bare = BareLoop(sys.executable, directory, count, _imports(modules))
        files["bare"] = bare.files
        try:
            _wait_answers(bare.files)
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


def starts(directory: Path, count: int, rounds: int, modules: Sequence[str]) -> Samples:
    """Seconds from the start of a daemon, or a bare loop, to the answers of all its kernels."""
    found: Samples = {"bare": [], "fork": []}
    for number in range(rounds):
        begin = time.perf_counter()
        bare = BareLoop(sys.executable, directory, count, _imports(modules))
        found["bare"].append(_wait_answers(bare.files) - begin)
        bare.close()
        begin = time.perf_counter()
        place = directory / f"start-{number}"
        with daemon(place, ["fork"], count, modules):
            found["fork"].append(_wait_answers(_files(place, "fork", count)) - begin)
    return found


def memory(directory: Path, count: int, modules: Sequence[str]) -> dict[str, float]:
    """What so many kernels take, with zygotes and spares, in MB; shared pages by their parts."""
    bare = BareLoop(sys.executable, directory, count, _imports(modules))
    _wait_answers(bare.files)
    found = {"bare": sum(proportional(process.pid) for process in bare.running.values())}
    bare.close()
    for kind in ("fork", "standby"):
        with daemon(directory / kind, [kind], count, modules) as config:
            _wait_warm(config, count)
            _wait_spares(config, kind)
            found[kind] = sum(map(proportional, _marked(directory / kind)))
    return found


def stock(directory: Path, kind: str, rounds: int, modules: Sequence[str]) -> tuple[list[float], int]:
    """How long stock clients that ask right after a kill wait, and how many of them see the whole output."""
    replies: list[float] = []
    whole = 0
    with daemon(directory, [kind], 1, modules, grace=0.215) as config, ThreadPoolExecutor(CLIENTS) as pool:
        _wait_warm(config, 1)
        file = _files(directory, kind, 1)[0]
        clients = [_client(file) for _ in range(CLIENTS)]
        for _ in range(rounds):
            _wait_spares(config, kind)
            pid = status(config)[f"{kind}-0"]["pid"]
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not is_alive(pid), TIMEOUT, "it has ended")  # type: ignore[misc]
            time.sleep(0.02)  # what is sent into a connection that is just breaking nobody reads
            for took, text in pool.map(_ask, clients):
                replies.append(took)
                whole += text == OUTPUT
        for client in clients:
            client.stop_channels()
    return replies, whole


def _client(file: Path) -> BlockingKernelClient:
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels(hb=False)
    client.execute_interactive("pass", timeout=TIMEOUT)
    return client


def _ask(client: BlockingKernelClient) -> tuple[float, str]:
    """As ``execute_interactive``: who does not look at iopub has not subscribed again either."""
    said: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        if message["content"].get("name") == "stdout":  # the restart is told on stderr
            said.append(message["content"]["text"])

    begin = time.perf_counter()
    client.execute_interactive(f"print({OUTPUT!r}, end='')", timeout=TIMEOUT, output_hook=hear)
    return time.perf_counter() - begin, "".join(said)


def request(directory: Path, rounds: int, count: int = 5) -> Samples:
    """Seconds of a request to kernels as they come, and to some that are prepared, each after the other.

    ``count`` of each: from one process to the next of the same kind it differs by more than we ask for.
    """
    found: Samples = {"off": [], "prepared": []}
    with daemon(directory, list(found), count, ()) as config:
        wait_until(lambda: _are_up(config, 2 * count), TIMEOUT, "all run", 0.5)
        clients = {kind: [_client(file) for file in _files(directory, kind, count)] for kind in found}
        for number in range(rounds):
            for kind in sorted(found, reverse=bool(number % 2)):
                client = clients[kind][number // 2 % count]
                begin = time.perf_counter()
                client.execute("1", reply=True, timeout=TIMEOUT)
                found[kind].append(time.perf_counter() - begin)
        for each in (*clients["off"], *clients["prepared"]):
            each.stop_channels()
    return found


def dearer(found: Samples) -> float:
    """By how much a request is, as a median of pairs."""
    return median(b - a for a, b in zip(found["off"], found["prepared"], strict=True))


def _imports(modules: Sequence[str]) -> str:
    return "; ".join(f"import {module}" for module in modules)


def _files(directory: Path, kind: str, count: int) -> list[Path]:
    return [directory / "run" / f"kernel-{kind}-{number}.json" for number in range(count)]


def _wait_answers(files: Sequence[Path]) -> float:
    wait_until(lambda: all(map(address, files)), TIMEOUT, "connection files", 0.005)
    return wait_answers([address(file) or {} for file in files], TIMEOUT, "1")


def _marked(directory: Path) -> list[int]:
    """The processes that a daemon has started here, kernels and helpers."""
    found = []
    for entry in PROC.iterdir():
        try:
            variables = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdecimal() else []
        except OSError:
            continue
        names = dict(variable.partition(b"=")[::2] for variable in variables)
        if MARK_VARIABLE.encode() in names and names.get(b"WARM") == os.fsencode(directory):
            found.append(int(entry.name))
    return found


def _time(pids: Sequence[int], addresses: list[dict[str, object]]) -> float:
    begin = time.perf_counter()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return wait_answers(addresses, TIMEOUT, "1") - begin


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
