"""The TCP ports of kernels: found below the ephemeral range, claimed, and held while a kernel is down.

Owns the list of ports that this process has given to its kernels, and the
sockets that keep them from other programs.  Never listens, never connects, and
never gives a kernel another port than the one that it asked for.

Ports of the ephemeral range (``ip_local_port_range``, ip(7)) go to any outgoing
connection of any program while the kernel is down, so they are not chosen.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import threading
import weakref
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

_LOWEST = 10_000
_HIGHEST = 65_535
_EPHEMERAL = (32_768, 60_999)
_EPHEMERAL_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LEAST_ROOM = 1_000
_ATTEMPTS = 2_000

_EVERYWHERE = "0.0.0.0"  # noqa: S104  where a kernel listens is its operator's choice
_LOOPBACKS = {_EVERYWHERE: "127.0.0.1", "::": "::1"}

Place = tuple[str, int]
"""An address to bind and a port."""

_Places = weakref.WeakKeyDictionary[object, frozenset[Place]]


class PortTaken(OSError):
    """Somebody else uses a port (or socket file) that the kernel needs; ``place`` is the port or the path."""

    def __init__(self, port: int, where: str, what: str = "is in use by another program") -> None:
        super().__init__(errno.EADDRINUSE, f"port {port} on {where} {what}")
        self.port = port
        self.place: int | str = where if where.startswith("/") else port


def bound_ip(ip: str) -> str:
    """The address that a kernel told to listen on ``ip`` binds (``*`` means every IPv4 address)."""
    return _EVERYWHERE if ip in {"", "*"} else ip


def reachable_ip(ip: str) -> str:
    """The address at which we reach a kernel that listens on ``ip``: loopback for a wildcard."""
    bound = bound_ip(ip)
    return _LOOPBACKS.get(bound, bound)


def search_range() -> range:
    """The ports to choose from: below the ephemeral range, else above it, else all from 10000 on."""
    try:
        low, high = (int(word) for word in _EPHEMERAL_FILE.read_text().split())
    except (OSError, ValueError):
        low, high = _EPHEMERAL
    for candidates in (range(_LOWEST, low), range(max(high + 1, _LOWEST), _HIGHEST + 1)):
        if len(candidates) >= _LEAST_ROOM:
            return candidates
    return range(_LOWEST, _HIGHEST + 1)


def bind(ip: str, port: int, *, reuse: bool) -> socket.socket:
    """Bind a TCP socket that does not listen and that no child inherits.

    With ``reuse`` (SO_REUSEADDR, socket(7)) it fails only if somebody listens,
    and a kernel that sets the option too, as libzmq does, can still bind and
    listen beside it.  Without, it fails if anybody has bound the port at all.

    Raises PortTaken, or OSError if the address is none of this machine's.
    """
    ip = bound_ip(ip)
    # As libzmq resolves names unless told otherwise: "localhost" means IPv4.
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    where = socket.getaddrinfo(ip, port, family, socket.SOCK_STREAM)[0][4]
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
        held.bind(where)
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(port, ip) from None
        raise
    return held


def is_listened_on(ip: str, port: int) -> bool:
    """Whether somebody listens on the port, our own hold notwithstanding."""
    try:
        bind(ip, port, reuse=True).close()
    except PortTaken:
        return True
    return False


class Claims:
    """Who in this process has been given which ports, and whose settings fix which; for several threads.

    A claim ends with its owner, so a kernel that is forgotten needs no care.
    """

    def __init__(self) -> None:
        self.renew_lock()
        self._places: _Places = weakref.WeakKeyDictionary()
        self._fixed: _Places = weakref.WeakKeyDictionary()

    def renew_lock(self) -> None:
        """In a forked child: whoever held the lock is not here."""
        self._lock = threading.Lock()

    def claim(self, owner: object, places: Iterable[Place]) -> None:
        """Note that these are the owner's, and none else any more."""
        with self._lock:
            self._places[owner] = frozenset((bound_ip(ip), port) for ip, port in places)

    def give_up(self, owner: object, places: Collection[Place]) -> None:
        """Have those that overlap with these be the owner's no more."""
        with self._lock:
            mine = self._places.get(owner, frozenset())
            self._places[owner] = frozenset(place for place in mine if not _is_among(place, places))

    def fix(self, owner: object, places: Iterable[Place]) -> None:
        """Note that the owner's settings ask for these and no others, whether it has them or not."""
        with self._lock:
            self._fixed[owner] = frozenset((bound_ip(ip), port) for ip, port in places)

    def release(self, owner: object) -> None:
        """Forget what the owner had, and asked for."""
        with self._lock:
            self._places.pop(owner, None)
            self._fixed.pop(owner, None)

    def other_owner(self, ip: str, port: int, *, than: object) -> object | None:
        """Who else has this port at this address, or at every address."""
        return self._other(self._places, ip, port, than)

    def is_fixed(self, ip: str, port: int, *, by_other_than: object) -> bool:
        """Whether the settings of another owner ask for this port at this address, or at every address."""
        return self._other(self._fixed, ip, port, by_other_than) is not None

    def _other(self, table: _Places, ip: str, port: int, than: object) -> object | None:
        place = (bound_ip(ip), port)
        with self._lock:
            others = (owner for owner, places in table.items() if _is_among(place, places))
            return next((owner for owner in others if owner is not than), None)

    def pick(
        self, owner: object, ip: str, count: int, avoid: Collection[int] = (), holds: Holds | None = None
    ) -> list[int]:
        """Choose free ports at random and claim them for the owner, beside what it has.

        Given ``holds``, they are held from the moment that they were found free:
        no other program finds them so.  Raises OSError if there are not so many.
        """
        candidates = search_range()
        with self._lock:
            known = (*self._places.values(), *self._fixed.values())
            unwanted = {port for places in known for _, port in places} | set(avoid)
            found: dict[int, socket.socket] = {}
            try:
                for _ in range(_ATTEMPTS):
                    if len(found) == count:
                        break
                    port = secrets.choice(candidates)
                    if port not in unwanted and (held := _bound_alone(ip, port)) is not None:
                        unwanted.add(port)
                        found[port] = held
                else:
                    raise OSError(errno.EADDRNOTAVAIL, f"no {count} free ports on {ip}")
            except BaseException:
                _close_all(found)
                raise
            mine = self._places.get(owner, frozenset())
            self._places[owner] = mine | {(bound_ip(ip), port) for port in found}
        for port, held in found.items():
            if holds is None:
                held.close()
            else:
                holds.have((bound_ip(ip), port), held)
        return list(found)


def _is_among(place: Place, places: Collection[Place]) -> bool:
    ip, port = place
    return any(
        port == its_port and (ip == its_ip or ip in _LOOPBACKS or its_ip in _LOOPBACKS)
        for its_ip, its_port in places
    )


def _bound_alone(ip: str, port: int) -> socket.socket | None:
    """A hold on a port that nobody else has bound."""
    try:
        # Without SO_REUSEADDR: another supervisor's hold must count as taken.
        held = bind(ip, port, reuse=False)
    except PortTaken:
        return None
    # From now on the kernel can listen beside it.
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return held


CLAIMS = Claims()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CLAIMS.renew_lock)


class Holds:
    """The sockets that keep ports from other programs while a kernel is down."""

    def __init__(self) -> None:
        self._sockets: dict[Place, socket.socket] = {}
        weakref.finalize(self, _close_all, self._sockets).atexit = False

    def have(self, place: Place, held: socket.socket) -> None:
        """Keep a socket that holds the place already."""
        self._sockets[place] = held

    def take(self, places: Iterable[Place]) -> None:
        """Hold each of these that is not held yet.

        Raises PortTaken naming the first on which somebody listens, after holding the others.
        """
        taken: PortTaken | None = None
        for place in places:
            if place in self._sockets:
                continue
            try:
                self._sockets[place] = bind(*place, reuse=True)
            except PortTaken as error:
                taken = taken or error
        if taken is not None:
            raise taken

    def keep_only(self, places: Collection[Place]) -> None:
        """Let go of all but these."""
        for place in self._sockets.keys() - set(places):
            self._sockets.pop(place).close()

    def covers(self, places: Collection[Place]) -> bool:
        """Whether each of these is held (and there are any)."""
        return bool(places) and set(places) <= self._sockets.keys()


def _close_all(sockets: Mapping[Any, socket.socket]) -> None:
    for held in sockets.values():
        held.close()
