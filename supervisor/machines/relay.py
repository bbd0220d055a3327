"""The relay: the local addresses of kernels that run elsewhere, as a process that outlives the daemon.

``relay.py DIRECTORY LOCK`` listens at ``relay.sock`` there, writes its pid to the descriptor LOCK and keeps
that, and says on its standard output when it can be asked; ``supervisor.machines.relays`` asks.
Owns the ports, and passes on to wherever each kernel is just now; while it is nowhere, its ports are kept
and refuse.  A place is an address and a port, or a host and the path of a socket there, which is reached by
ssh.  Keeps nothing on disk, understands nothing of what passes by, decides nothing.

One thread, and the standard library alone: it is run by its path, and light.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import IO, Any

Place = tuple[str, int | str]

SOCKET, TUNNEL = "relay.sock", "relay.ssh."
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
SHELL, IOPUB = 0, 1
# Seconds from a move until shell opens: at the earliest, as a stock client tries again within 0.2; at the
# latest, as some subscribers never come back.
SOONEST, LATEST = 0.3, 1.0
# What a subscriber sends before its subscriptions: a greeting of 64 bytes, and the command READY with no
# more than the type of its socket (ZMTP 3.1, ZeroMQ RFC 37).
HANDSHAKE = 92
RESERVE = 32  # descriptors that are kept for orders
# Traffic is quick after so many events in a row, each within so many seconds; a heartbeat is not.
QUICK, AWAKE = 8, 0.0002
LONGEST_DELAY = 30.0  # seconds until an ssh that ended is begun again, from one on
LONGEST_ORDER = 1 << 20
READ, WRITE = select.EPOLLIN, select.EPOLLOUT
# Send at once, and notice within a minute that the other machine is gone (tcp(7)).
_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
)
_BUFFER = memoryview(bytearray(1 << 18))
# Alone, and asking nobody; what the account says to ssh of the host (ssh_config(5)) is in force.
_SSH = (
    "-Tax",
    "-oBatchMode=yes",
    "-oControlPath=none",
    "-oExitOnForwardFailure=yes",
    "-oPermitLocalCommand=no",
    "-oConnectTimeout=10",
    "-oServerAliveInterval=15",
)
# It tells when it forwards, and ends when we do: its input ends with us.
_THERE = "echo; exec cat"
_NUMBERS = count()


class Wire:
    """A socket, what could not be sent yet, and what it waits for."""

    __slots__ = ("mask", "relay", "sock", "unsent")

    def __init__(self, relay: Relay, sock: socket.socket) -> None:
        self.relay, self.sock, self.mask, self.unsent = relay, sock, 0, memoryview(b"")
        sock.setblocking(False)

    def wait_for(self, mask: int) -> None:
        """Have ``ready`` called then."""
        if mask != self.mask:
            self.mask = mask
            self.relay.watch(self.sock, mask, self.ready)

    def send(self, data: memoryview) -> None:
        """Send what can be sent now, and keep a copy of the rest: the buffer is used again."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        if self.unsent or sent < len(data):
            self.unsent = memoryview(bytes(data[sent:]))

    def ready(self, events: int) -> None:
        """Do what can be done now."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of it."""
        self.wait_for(0)
        self.sock.close()


class Side(Wire):
    """One of the two ends of a connection that passes through."""

    __slots__ = ("door", "has_ended", "is_up", "peer", "received")

    def __init__(self, door: Door, sock: socket.socket, *, is_up: bool) -> None:
        super().__init__(door.relay, sock)
        self.door, self.is_up, self.has_ended, self.received, self.peer = door, is_up, False, 0, self
        for option in _OPTIONS if sock.family == socket.AF_INET else ():
            sock.setsockopt(*option)

    def renew(self) -> None:
        """Wait for what we can go on with: a reader that is slow holds the writer up, and no memory grows."""
        readable = self.is_up and self.peer.is_up and not self.has_ended and not self.peer.unsent
        self.wait_for((READ if readable else 0) | (WRITE if self.unsent or not self.is_up else 0))

    def ready(self, events: int) -> None:
        """Pass on; what cannot be passed on ends the connection."""
        try:
            if not self.is_up:
                if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise ConnectionError
                self.is_up = True
            if self.unsent:
                self.send(self.unsent)
            if events & ~WRITE and self.mask & READ and self._pass_on() and self.mask == READ:
                return  # as nearly always: nothing else has changed
        except BlockingIOError:
            pass
        except OSError:
            self.door.drop(self)
        else:
            if self.has_ended and self.peer.has_ended and not self.unsent:
                self.door.drop(self)
        if self.sock.fileno() >= 0:
            self.renew()
            self.peer.renew()

    def _pass_on(self) -> bool:
        """Whether all that has come could be sent on."""
        count = self.sock.recv_into(_BUFFER)
        self.received += count
        if count:
            self.peer.send(_BUFFER[:count])
            return not self.peer.unsent
        self.has_ended = True
        self.peer.sock.shutdown(socket.SHUT_WR)
        return False


class Door:
    """One port of an address."""

    def __init__(self, relay: Relay, place: Place) -> None:
        self.relay = relay
        self.target: Place | None = None
        self.clients: set[Side] = set()
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind(place)

    def lead(self, target: Place | None) -> None:
        """End what leads elsewhere.  Refuse, or have those who come wait in the system's queue."""
        self.relay.watch(self.sock, 0, self.accept)
        for side in list(self.clients):
            self.drop(side)
        if target is not None:
            self.sock.listen(1024)
        elif self.target is not None:
            self.sock.shutdown(socket.SHUT_RDWR)  # it stays bound, and may listen again
        self.target = target

    def let_in(self) -> None:
        """Take those who wait, and who come."""
        self.relay.watch(self.sock, READ, self.accept)

    def accept(self, _: int) -> None:
        """Take one client; it is sent away where there is no room for it."""
        try:
            sock, _peer = self.sock.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has gone again
        except OSError:
            time.sleep(0.01)  # the whole machine has no descriptor: not asked for all the time
            return
        if sock.fileno() + RESERVE > self.relay.most:  # the lowest that is free
            sock.close()
            return
        assert self.target is not None, "who refuses is not watched"
        host, port = self.target
        onward = socket.socket(socket.AF_INET if host else socket.AF_UNIX)
        client, server = Side(self, sock, is_up=True), Side(self, onward, is_up=False)
        client.peer, server.peer = server, client
        self.clients.add(client)
        if onward.connect_ex((host, port) if host else str(port)) in (0, errno.EINPROGRESS):
            server.renew()
        else:
            self.drop(client)

    def drop(self, side: Side) -> None:
        """End a connection at both ends."""
        for each in (side, side.peer):
            self.clients.discard(each)
            each.close()


class Tunnel:
    """An ssh to the host of an address, whose sockets are sockets here."""

    def __init__(self, address: Address, target: list[Place]) -> None:
        import subprocess  # few need it

        self.address, self.is_up = address, False
        stem = f"./{TUNNEL}{next(_NUMBERS)}"
        self.places: list[Place] = [("", f"{stem}.{channel}") for channel in CHANNELS]
        ways = [f"-L{here}:{there}" for (_, here), (_, there) in zip(self.places, target, strict=True)]
        command = ["ssh", *_SSH, *ways, "--", target[0][0], _THERE]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.process.stdin is not None, "it was asked for"
        assert self.process.stdout is not None, "it was asked for"
        self.held, self.said = self.process.stdin, self.process.stdout
        os.set_blocking(self.said.fileno(), False)
        address.relay.watch(self.said, READ, self.ready)

    def ready(self, _: int) -> None:
        """It passes on from now on, or has ended."""
        said = self.said.read(1024)
        if said == b"":
            self.address.refuse()
        elif said and not self.is_up:
            self.is_up, self.address.delay = True, 1.0
            self.address.open(self.places)

    def close(self) -> None:
        """End it."""
        self.address.relay.watch(self.said, 0, self.ready)
        self.process.kill()
        self.process.poll()  # if it is too early, the next to be begun buries it
        self.held.close()
        self.said.close()
        for _, path in self.places:
            with suppress(OSError):
                os.unlink(str(path))


class Address:
    """The five ports of a kernel, and where it is.

    After a move subscribers come first: of a cell that was sent before its client subscribed, the output
    is lost; and a client that was cut subscribes again only when it next looks at its iopub.
    """

    def __init__(self, relay: Relay, local: list[Place]) -> None:
        self.relay, self.local = relay, local
        self.target: list[Place] | None = None
        self.tunnel: Tunnel | None = None
        self.delay = 0.0
        self.doors = [Door(relay, place) for place in local]
        self.moved_at, self.awaited = 0.0, 1  # one, whom we know nothing of before we began

    def lead(self, target: list[Place] | None) -> None:
        """Lead there from now on, or nowhere."""
        if target == self.target:
            return
        self.target, self.delay = target, 0.0
        if target is not None and isinstance(target[0][1], int):
            self._leave_tunnel()
            self.open(target)
        else:
            self.refuse()

    def refuse(self) -> None:
        """Refuse, until a tunnel leads there if one is to."""
        self._leave_tunnel()
        self.awaited = max(self.awaited, len(self.doors[IOPUB].clients))
        self.moved_at = time.monotonic()
        for door in self.doors:
            door.lead(None)
        (self.relay.moving.discard if self.target is None else self.relay.moving.add)(self)

    def open(self, places: list[Place]) -> None:
        """Lead to these; those who come to shell wait a little."""
        self.awaited = max(self.awaited, len(self.doors[IOPUB].clients))
        self.moved_at = time.monotonic()
        for number, (door, place) in enumerate(zip(self.doors, places, strict=True)):
            door.lead(place)
            if number != SHELL:
                door.let_in()
        self.relay.moving.add(self)

    def _leave_tunnel(self) -> None:
        if self.tunnel is not None:
            self.tunnel.close()
            self.tunnel = None

    def _begin_tunnel(self, passed: float) -> float:
        if passed < self.delay:
            return self.delay - passed
        assert self.target is not None, "who is nowhere is not on its way"
        self.moved_at, self.delay = time.monotonic(), min(2 * self.delay or 1.0, LONGEST_DELAY)
        try:
            self.tunnel = Tunnel(self, self.target)
        except OSError as error:
            sys.stderr.write(f"no ssh to {self.target[0][0]}: {error}\n")
        else:
            self.relay.moving.discard(self)
        return self.delay

    def go_on(self) -> float:
        """After a move: open shell if it is time; else in how many seconds, at most."""
        passed = time.monotonic() - self.moved_at
        if self.doors[SHELL].target is None:
            return self._begin_tunnel(passed)
        back = sum(client.received > HANDSHAKE for client in self.doors[IOPUB].clients)
        if passed < SOONEST or (back < self.awaited and passed < LATEST):
            return (SOONEST if passed < SOONEST else LATEST) - passed
        self.doors[SHELL].let_in()
        self.relay.moving.discard(self)
        self.awaited = 1
        return 0.0


class Orders(Wire):
    """One connection over which we are told what to do: a line of JSON is answered with one."""

    __slots__ = ("held",)

    def __init__(self, relay: Relay, sock: socket.socket) -> None:
        super().__init__(relay, sock)
        self.held = b""

    def ready(self, events: int) -> None:
        """Read, obey, answer."""
        try:
            if self.unsent:
                self.send(self.unsent)
            elif events & ~WRITE:
                data = self.sock.recv(65536)
                *lines, self.held = (self.held + data).split(b"\n")
                if not data or len(self.held) > LONGEST_ORDER:
                    raise ConnectionError
                answers = [json.dumps(self.relay.obey(line)).encode() + b"\n" for line in lines]
                self.send(memoryview(b"".join(answers)))
            self.wait_for(WRITE if self.unsent else READ)
        except BlockingIOError:
            pass
        except OSError:
            self.close()


class Relay:
    """All addresses, and the loop."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.watched: dict[int, Callable[[int], None]] = {}
        self.addresses: dict[str, Address] = {}
        self.moving: set[Address] = set()
        self.is_over = False
        self.quick = 0  # how often in a row something has happened soon
        self.most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.most, self.most))

    def watch(self, sock: socket.socket | IO[bytes], mask: int, ready: Callable[[int], None]) -> None:
        """Have ``ready`` called with what has happened; with no mask nothing is told, not even a hang-up."""
        fd = sock.fileno()
        if mask:
            (self.epoll.modify if fd in self.watched else self.epoll.register)(fd, mask)
            self.watched[fd] = ready
        elif self.watched.pop(fd, None):
            self.epoll.unregister(fd)

    def hear(self, door: socket.socket) -> None:
        """Take somebody who has orders, if it is our own account."""
        with suppress(OSError):
            sock, _ = door.accept()
            _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid == os.geteuid():
                Orders(self, sock).wait_for(READ)

    def obey(self, line: bytes) -> dict[str, Any]:
        """What comes of an order.  One that is not understood, or cannot be done, changes nothing."""
        try:
            match json.loads(line):
                case {"name": str(name), "local": list(local), "target": target}:
                    self._set(name, _five(local), None if target is None else _five(target))
                case {"name": str(name), "local": None}:
                    self._remove(name)
                case {"list": True}:
                    return {"addresses": {name: self._told(name) for name in self.addresses}}
                case _:
                    return {"error": "no such order"}
        except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
            return {"error": str(error) or type(error).__name__}
        return {}

    def _set(self, name: str, local: list[Any], target: list[Place] | None) -> None:
        known = self.addresses.get(name)
        if known is None:
            known = self.addresses[name] = Address(self, local)
        if known.local != local:
            raise ValueError(f"{name} has other ports: remove it first")
        known.lead(target)

    def _remove(self, name: str) -> None:
        if (known := self.addresses.pop(name, None)) is not None:
            known.lead(None)
            for door in known.doors:
                door.sock.close()
        self.is_over = not self.addresses

    def _told(self, name: str) -> dict[str, Any]:
        known = self.addresses[name]
        connections = sum(len(door.clients) for door in known.doors)
        return {"local": known.local, "target": known.target, "connections": connections}

    def run(self, door: socket.socket) -> None:
        """Go round until the last address was removed."""
        self.watch(door, READ, lambda _: self.hear(door))
        while not self.is_over:
            soonest = min([each.go_on() for each in list(self.moving)], default=None)
            for fd, events in self.wait(soonest):
                if (ready := self.watched.get(fd)) is not None:  # closed by one before it in the same round
                    ready(events)

    def wait(self, soonest: float | None) -> list[tuple[int, int]]:
        """What has happened; in quick traffic it is awaited awake for a moment: who sleeps is woken late."""
        if self.quick >= QUICK:
            until = time.monotonic() + AWAKE
            while time.monotonic() < until:
                if happened := self.epoll.poll(0):
                    return happened
                os.sched_yield()  # to whoever is to answer
            self.quick = 0
        began = time.monotonic()
        happened = self.epoll.poll(soonest)
        self.quick = self.quick + 1 if time.monotonic() - began < AWAKE else 0
        return happened


def _five(places: list[Any]) -> list[Place]:
    if len(places) != len(CHANNELS):
        raise ValueError(f"an address has {len(CHANNELS)} ports, not {len(places)}")
    return [_place(*place) for place in places]


def _place(ip: str, port: int | str) -> Place:
    if isinstance(port, str):
        if not (ip.isprintable() and ip and port.startswith("/") and ":" not in port):
            raise ValueError(f"not a socket on a host: {ip}: {port}")
        return ip, port
    socket.inet_aton(ip)  # a name would be looked up, which takes its time
    if port not in range(1, 1 << 16):
        raise ValueError(f"not a port: {port}")
    return ip, port


def main(directory: str, lock: int) -> None:
    """Listen in that directory, which is ours alone, and serve."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    os.chdir(directory)  # the path of a socket has to be short
    os.umask(0o077)
    for left in os.listdir():  # by one that was killed
        if left.startswith(TUNNEL):
            os.unlink(left)
    door = socket.socket(socket.AF_UNIX)
    door.bind(fresh := f".{SOCKET}.{os.getpid()}")
    door.listen()
    door.setblocking(False)
    os.replace(fresh, SOCKET)
    relay = Relay()
    os.write(1, b"\n")
    os.dup2(2, 1)  # whoever waited for that may be gone soon
    relay.run(door)
    os.unlink(SOCKET)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
