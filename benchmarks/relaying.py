"""What the relay costs, beside the direct way and haproxy (where it is installed), in rounds that alternate.

Owns the two ends: a real heartbeat, and a program that sends as fast as it can.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import zmq

from benchmarks.asking import wait_answers
from benchmarks.processes import processor_time, proportional, wait_until
from supervisor.machines.relay import CHANNELS
from supervisor.machines.relays import LOCK, Relays

ECHOES, SIZE = 2000, 1 << 30
HB, SOURCE = 4, 1
SENDER = """
import socket, sys
door = socket.create_server(("127.0.0.1", int(sys.argv[1])))
data = bytes(1 << 20)
while True:
    with door.accept()[0] as sock:
        for _ in range(int(sys.argv[2]) >> 20):
            sock.sendall(data)
"""

Samples = dict[str, dict[str, list[float]]]
Ports = list[int]


def costs(directory: Path, rounds: int) -> Samples:
    """``echo`` on the heartbeat (seconds) and ``rate`` (bytes a second) of each way.

    Of the relay itself ``cpu`` (seconds for 10⁹ bytes) and ``memory`` (MB).
    """
    samples: Samples = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        direct = _ports()
        stack.enter_context(_kernel(directory, direct))
        ways = {"direct": direct, "relay": _ports()}
        pid = stack.enter_context(_relay(directory, ways["relay"], direct))
        if shutil.which("haproxy", path="/usr/sbin:/usr/bin"):
            ways["haproxy"] = _ports()
            stack.enter_context(_haproxy(directory, ways["haproxy"], direct))
        for _ in range(rounds):
            for name, ports in ways.items():
                samples["echo"][name].append(_echo(ports[HB]))
                before = processor_time(pid)
                samples["rate"][name].append(_rate(ports[SOURCE]))
                if name == "relay":
                    samples["cpu"][name].append((processor_time(pid) - before) / SIZE * 1e9)
        samples["memory"]["relay"].append(proportional(pid))
    return samples


def _echo(port: int) -> float:
    with zmq.Context.instance().socket(zmq.REQ) as beat:
        beat.linger = 0
        beat.rcvtimeo = 10_000
        beat.connect(f"tcp://127.0.0.1:{port}")
        taken = []
        for _ in range(ECHOES):
            begin = time.perf_counter()
            beat.send(b"ping")
            beat.recv()
            taken.append(time.perf_counter() - begin)
    return median(taken)


def _rate(port: int) -> float:
    buffer, got = bytearray(1 << 20), 0
    with socket.create_connection(("127.0.0.1", port)) as sock:
        begin = time.perf_counter()
        while count := sock.recv_into(buffer):
            got += count
        taken = time.perf_counter() - begin
    assert got == SIZE, f"{got} of {SIZE} bytes have come"
    return got / taken


def _ports() -> Ports:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in CHANNELS]
        for sock in held:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in held]


@contextmanager
def _kernel(directory: Path, ports: Ports) -> Iterator[None]:
    """A kernel, but for its iopub port, where the source is: nobody else asks for that."""
    at = dict(zip((f"{channel}_port" for channel in CHANNELS), ports, strict=True))
    where = {**at, "iopub_port": _ports()[0], "ip": "127.0.0.1", "transport": "tcp"}
    where |= {"key": "k", "signature_scheme": "hmac-sha256"}
    file = directory / "direct.json"
    file.write_text(json.dumps(where))
    commands = [
        [sys.executable, "-m", "ipykernel_launcher", "-f", str(file)],
        [sys.executable, "-c", SENDER, str(ports[SOURCE]), str(SIZE)],
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    try:
        wait_answers([where], 60)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def _relay(directory: Path, local: Ports, target: Ports) -> Iterator[int]:
    async def lead(name: str, *, there: bool) -> None:
        relays = Relays(directory, {"KERNEL_SUPERVISOR_RUN": "benchmark"}, lambda *_: None)
        await relays.take_up()
        if there:
            await relays.add(name, [("127.0.0.1", port) for port in local])
            await relays.point(name, [("127.0.0.1", port) for port in target])
        else:
            await relays.remove(name)
        await relays.close()

    asyncio.run(lead("a", there=True))
    try:
        yield int((directory / LOCK).read_text())
    finally:
        asyncio.run(lead("a", there=False))


@contextmanager
def _haproxy(directory: Path, local: Ports, target: Ports) -> Iterator[None]:
    file = directory / "haproxy.cfg"
    ways = [
        f"listen {channel}\n bind 127.0.0.1:{here}\n server s 127.0.0.1:{there}"
        for channel, here, there in zip(CHANNELS, local, target, strict=True)
    ]
    times = "timeout connect 5s\n timeout client 1h\n timeout server 1h"
    file.write_text("\n".join([f"defaults\n mode tcp\n {times}", *ways, ""]))
    with subprocess.Popen(["/usr/sbin/haproxy", "-db", "-f", str(file)]) as process:
        try:
            wait_until(lambda: _listens(local[0]), 10, "haproxy")
            yield
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
