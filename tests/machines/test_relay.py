"""The relay as a process: what passes through it, and what does not."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.machines import relay
from supervisor.machines.relay import CHANNELS, IOPUB, SHELL, SOCKET
from tests.machines.nodes import IPYKERNEL, client, running, value_of
from tests.waiting import DEADLINE, wait_for

Place = tuple[str, int]
HB = 4


def free_ports(count: int = len(CHANNELS)) -> tuple[Place, ...]:
    """Ports that nobody has just now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname() for each in sockets)


class Relay:
    """A relay that runs, and what can be said to it."""

    def __init__(self, directory: Path, descriptors: int = 1024) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        limited = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"]
        with (directory / "lock").open("w") as lock:
            command = [sys.executable, "-I", "-S", relay.__file__, str(directory), str(lock.fileno())]
            self.process = subprocess.Popen(
                [*limited, *command],
                stdout=subprocess.PIPE,
                pass_fds=[lock.fileno()],
            )
        assert self.process.stdout is not None
        assert b"\n" == self.process.stdout.read(1)

    def connect(self) -> socket.socket:
        """A connection to give orders over."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(str(self.directory / SOCKET))
        return sock

    def say(self, line: bytes) -> dict[str, Any]:
        """What it answers to a line."""
        with self.connect() as sock, sock.makefile("rwb") as file:
            file.write(line + b"\n")
            file.flush()
            answer: dict[str, Any] = json.loads(file.readline())
            return answer

    def lead(self, name: str, local: tuple[Place, ...] | None, target: object = None) -> None:
        """Set an address, which it can do."""
        assert {} == self.say(json.dumps({"name": name, "local": local, "target": target}).encode())

    def connections(self, name: str) -> int:
        """How many pass through an address."""
        found: int = self.say(b'{"list": true}')["addresses"][name]["connections"]
        return found

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def running_relay(tmp_path: Path) -> Iterator[Relay]:
    made = Relay(tmp_path / "relay")
    yield made
    made.close()


class Target:
    """Five ports of ours, at which somebody listens who does as a test says."""

    def __init__(self) -> None:
        self.doors = [socket.create_server(("127.0.0.1", 0)) for _ in CHANNELS]
        self.places = tuple(door.getsockname() for door in self.doors)
        for door in self.doors:
            door.settimeout(DEADLINE)

    def accept(self, number: int) -> socket.socket:
        sock, _ = self.doors[number].accept()
        sock.settimeout(DEADLINE)
        return sock

    def close(self) -> None:
        for door in self.doors:
            door.close()


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


def connect(place: Place) -> socket.socket:
    return socket.create_connection(place, timeout=DEADLINE)


def is_refused(place: Place) -> bool:
    try:
        connect(place).close()
    except ConnectionRefusedError:
        return True
    return False


def read_all(sock: socket.socket) -> bytes:
    """What comes until the end; of a connection that was cut, nothing."""
    got = b""
    with suppress(ConnectionResetError):
        while data := sock.recv(1 << 16):
            got += data
    return got


# Addresses


def test_what_is_written_arrives_both_ways_and_an_end_of_one_way_leaves_the_other(
    running_relay: Relay, target: Target
) -> None:
    local = free_ports()
    running_relay.lead("a", local, target.places)
    for number in range(len(CHANNELS)):
        with connect(local[number]) as near, target.accept(number) as far:
            near.sendall(b"to the kernel")
            near.shutdown(socket.SHUT_WR)

            assert b"to the kernel" == read_all(far)
            far.sendall(b"to the client")
            far.close()
            assert b"to the client" == read_all(near)
    wait_for(lambda: running_relay.connections("a") == 0)


def test_nowhere_is_refused_and_the_port_is_kept(running_relay: Relay, target: Target) -> None:
    local = free_ports()
    for _ in range(3):
        running_relay.lead("a", local)
        assert all(is_refused(place) for place in local)
        for place in local:
            with pytest.raises(OSError, match="in use"), socket.socket() as thief:
                thief.bind(place)
        running_relay.lead("a", local, target.places)
        with connect(local[HB]) as near, target.accept(HB) as far:
            far.sendall(b"here")
            assert b"here" == near.recv(9)


def test_who_is_connected_is_cut_when_the_kernel_moves_and_others_are_not(
    running_relay: Relay, target: Target, other: Target
) -> None:
    ours, theirs = free_ports(), free_ports()
    running_relay.lead("a", ours, target.places)
    running_relay.lead("b", theirs, target.places)
    with connect(ours[HB]) as cut, target.accept(HB), connect(theirs[HB]) as whole, target.accept(HB) as far:
        running_relay.lead("a", ours, other.places)

        assert b"" == read_all(cut)
        with connect(ours[HB]) as near, other.accept(HB) as moved:
            moved.sendall(b"moved")
            assert b"moved" == near.recv(9)
        running_relay.lead("a", ours)
        running_relay.lead("a", None)
        far.sendall(b"still here")
        assert b"still here" == whole.recv(99)


def test_the_same_target_again_changes_nothing(running_relay: Relay, target: Target) -> None:
    local = free_ports()
    running_relay.lead("a", local, target.places)
    with connect(local[HB]) as near, target.accept(HB) as far:
        running_relay.lead("a", local, target.places)

        far.sendall(b"still here")
        assert b"still here" == near.recv(99)


def test_a_target_where_nobody_listens_ends_the_connection(running_relay: Relay) -> None:
    local = free_ports()
    running_relay.lead("a", local, free_ports())
    with connect(local[HB]) as near:
        assert b"" == read_all(near)
    assert 0 == running_relay.connections("a")


def test_it_ends_with_its_last_address(running_relay: Relay) -> None:
    running_relay.lead("a", free_ports())
    running_relay.lead("b", free_ports())
    running_relay.lead("a", None)
    assert running_relay.process.poll() is None
    running_relay.lead("b", None)

    assert 0 == running_relay.process.wait(DEADLINE)
    assert not (running_relay.directory / SOCKET).exists()


# After a move


def subscribe(place: Place) -> socket.socket:
    """As much as a subscriber says until it is one."""
    sock = connect(place)
    sock.sendall(b"x" * (relay.HANDSHAKE + 1))
    return sock


def test_after_a_move_shell_waits_until_the_subscribers_are_back(
    running_relay: Relay, target: Target, other: Target
) -> None:
    local = free_ports()
    running_relay.lead("a", local, target.places)
    with subscribe(local[IOPUB]), target.accept(IOPUB), subscribe(local[IOPUB]), target.accept(IOPUB):
        wait_for(lambda: running_relay.connections("a") == 2)
        running_relay.lead("a", local, other.places)
        with connect(local[SHELL]) as shell, subscribe(local[IOPUB]):
            shell.sendall(b"a cell")
            assert not select.select([other.doors[SHELL]], [], [], 2 * relay.SOONEST)[0]
            with subscribe(local[IOPUB]), other.accept(SHELL) as far:
                assert b"a cell" == far.recv(9)


def test_shell_does_not_wait_for_ever_for_subscribers_that_never_come_back(
    running_relay: Relay, target: Target, other: Target
) -> None:
    local = free_ports()
    running_relay.lead("a", local, target.places)
    with subscribe(local[IOPUB]), target.accept(IOPUB):
        running_relay.lead("a", local)
    running_relay.lead("a", local, other.places)
    with connect(local[SHELL]) as shell, other.accept(SHELL) as far:
        shell.sendall(b"a cell")
        assert b"a cell" == far.recv(9)


def test_a_stock_client_works_on_through_moves_and_misses_no_output(
    running_relay: Relay, tmp_path: Path
) -> None:
    local = free_ports()
    code = "for i in range(20): print(i)"
    with running(tmp_path / "one", IPYKERNEL) as one, running(tmp_path / "two", IPYKERNEL) as two:
        targets = (one.target(), two.target())
        running_relay.lead("a", local)
        with client(local) as made_before:
            lost = []
            for move in range(20):
                running_relay.lead("a", local, targets[move % 2])
                if value_of(made_before, code) != "".join(f"{i}\n" for i in range(20)):
                    lost.append(move)

            assert [] == lost


# Peers that are slow, many, silent, or lie


def cpu_time(of: Relay) -> float:
    fields = Path(f"/proc/{of.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Events:
    """A clock, and an epoll that sees so many events in quick succession, and then none."""

    def __init__(self, count: int) -> None:
        self.now, self.left = 0.0, count
        self.asked: list[float | None] = []

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        self.asked.append(timeout)
        if self.left:
            self.left -= 1
            return [(0, 1)]
        self.now += 0 if timeout == 0 else 10
        return []


def test_it_stays_awake_in_quick_traffic_and_sleeps_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    events = Events(relay.QUICK + 3)
    monkeypatch.setattr(relay, "time", events)
    monkeypatch.setattr(relay.resource, "setrlimit", lambda *_: None)
    looping = relay.Relay()
    looping.epoll.close()
    looping.epoll = events  # type: ignore[assignment]

    for _ in range(relay.QUICK + 3):
        assert looping.wait(None)
    assert [None] * relay.QUICK + [0] * 3 == events.asked
    events.asked.clear()
    assert not looping.wait(None)
    assert {0} == set(events.asked[:-1])
    assert events.asked[-1] is None, "it sleeps"
    events.asked.clear()
    assert not looping.wait(5.0)
    assert [5.0] == events.asked


def test_a_slow_reader_gets_all_of_100_mb_and_no_memory_grows(running_relay: Relay, target: Target) -> None:
    local, size = free_ports(), 100 << 20
    running_relay.lead("a", local, target.places)
    with connect(local[IOPUB]) as near, target.accept(IOPUB) as far:
        sending = threading.Thread(target=far.sendall, args=(bytes(range(256)) * (size // 256),))
        sending.start()
        got = 0
        while got < size:
            data = near.recv(min(1 << 16, size - got))
            assert data[:1] == bytes([got % 256])
            got += len(data)
        sending.join(DEADLINE)
    status = Path(f"/proc/{running_relay.process.pid}/status").read_text()
    most = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert most < 40_000  # kB


def test_a_reader_that_stands_still_holds_nobody_else_up(running_relay: Relay, target: Target) -> None:
    local = free_ports()
    running_relay.lead("a", local, target.places)
    with connect(local[IOPUB]), target.accept(IOPUB) as flood:
        while select.select([], [flood], [], relay.SOONEST)[1]:
            flood.send(b"x" * (1 << 20), socket.MSG_DONTWAIT)
        with connect(local[HB]) as near, target.accept(HB) as far:
            near.sendall(b"beat")
            assert b"beat" == far.recv(9)
        before = cpu_time(running_relay)
        assert not select.select([], [flood], [], 2 * relay.SOONEST)[1]
        assert cpu_time(running_relay) - before < relay.SOONEST


def test_where_descriptors_run_out_clients_are_sent_away_and_orders_are_taken(
    tmp_path: Path, target: Target, other: Target
) -> None:
    few, local = Relay(tmp_path / "few", descriptors=100), free_ports()
    try:
        few.lead("a", local, target.places)
        with ExitStack() as connected:
            near = [connected.enter_context(connect(local[HB])) for _ in range(60)]
            wait_for(lambda: few.connections("a") > 20)

            assert few.descriptors < 100
            assert b"" == read_all(near[-1])
            few.lead("b", free_ports(), target.places)
            target.close()
        wait_for(lambda: few.connections("a") == 0)
        few.lead("a", local, other.places)
        with connect(local[HB]) as again, other.accept(HB) as far:
            again.sendall(b"beat")
            assert b"beat" == far.recv(9)
    finally:
        few.close()


def places(*ports: object) -> list[object]:
    return [["127.0.0.1", port] for port in ports]


@pytest.mark.parametrize(
    "order",
    [
        b"",
        b"{",
        b"[" * 3000,
        b"\xff\xfe",
        b"null",
        {"name": "a", "local": [], "target": None},
        {"name": "a", "local": places(1), "target": None},
        {"name": "a", "local": places(0, 0, 0, 0, 0), "target": None},
        {"name": "a", "local": places(1, 2, 3, 4, 1e308), "target": None},
        {"name": "a", "local": places(1, 2, 3, 4, 70_000), "target": None},
        {"name": "a", "local": places(1, 2, 3, 4, "5"), "target": None},
        {"name": "a", "local": [["localhost", 1]] * 5, "target": None},
        {"name": "a", "local": [1, 2, 3, 4, 5], "target": None},
        {"name": "b", "local": None, "target": 7},
        {"name": "kept", "local": places(1, 2, 3, 4, 5), "target": None},
        {"name": "a", "local": places(1, 2, 3, 4, 5), "target": places(1, 2, 3, 4, 70_000)},
        {"name": "a", "local": places(1, 2, 3, 4, 5), "target": [["localhost", 1]] * 5},
        {"name": "a", "local": places(1, 2, 3, 4, 5), "target": ["xy"] * 5},
    ],
)
def test_an_order_that_is_not_understood_changes_nothing(running_relay: Relay, order: object) -> None:
    running_relay.lead("kept", free_ports())
    before = running_relay.say(b'{"list": true}')

    running_relay.say(order if isinstance(order, bytes) else json.dumps(order).encode())
    assert before == running_relay.say(b'{"list": true}')


def test_a_port_that_another_has_is_told_and_nothing_is_kept_of_the_address(running_relay: Relay) -> None:
    local = free_ports()
    with socket.create_server(local[HB]):
        order = json.dumps({"name": "a", "local": local, "target": None}).encode()
        assert "in use" in running_relay.say(order)["error"]
        assert {"addresses": {}} == running_relay.say(b'{"list": true}')
    running_relay.lead("a", local)


def test_orders_that_never_end_are_cut_off(running_relay: Relay) -> None:
    with running_relay.connect() as sock, suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(2 * relay.LONGEST_ORDER >> 16):
            sock.sendall(b"x" * (1 << 16))
        assert b"" == sock.recv(1)
    assert {"addresses": {}} == running_relay.say(b'{"list": true}')


def test_who_has_orders_and_says_nothing_holds_nobody_up(running_relay: Relay) -> None:
    with ExitStack() as open_:
        for _ in range(5):
            open_.enter_context(running_relay.connect()).sendall(b'{"list"')
        assert {"addresses": {}} == running_relay.say(b'{"list": true}')
