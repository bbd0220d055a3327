"""The socket file of the control door: bound, owned by us alone, removed when it is still ours.

Owns the file and nothing that is said over it.  It is never open to others than whom it
is opened to, not for a moment, and never taken from a daemon that answers on it.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from supervisor.control.callers import Caller
from supervisor.control.lookup import BadPath, short_name
from supervisor.disk.privacy import let_in

BACKLOG = 128
_TURN_TRIES, _TURN_PAUSE = 40, 0.05


class DoorError(OSError):
    """The control socket cannot be opened; the text says why and what to do."""


class Bound(Struct, frozen=True):
    """A listening socket and the identity of its file."""

    sock: socket.socket
    path: Path
    device: int
    inode: int

    def open_to(self, groups: frozenset[int]) -> str:
        """Let these groups connect, and nobody else but us; what keeps them from it all the same, or "".

        Raises OSError.
        """
        let_in(self.path, 6, groups=groups, anew=True)
        if not groups:
            return ""
        directory = self.path.absolute().parent
        there = directory.stat()
        if there.st_uid == os.geteuid() and not there.st_mode & stat.S_IXOTH:
            let_in(directory, 1, groups=groups)
        closed = next((part for part in directory.parents if not part.stat().st_mode & stat.S_IXOTH), None)
        return (
            ""
            if closed is None
            else f"{closed} keeps others from {self.path}: chmod o+x it, or name another socket"
        )

    def is_in_place(self) -> bool:
        """Whether the file is there, and no other has taken its place."""
        try:
            found = self.path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (self.device, self.inode)

    def remove(self) -> None:
        """Stop listening, and remove the file unless another has taken its place."""
        self.sock.close()
        if self.is_in_place():
            with suppress(OSError):
                self.path.unlink()


def bind(path: Path) -> Bound:
    """Listen on this path; blocks.  Raises DoorError.

    The file is bound under another name, with mode 0600 from its first
    moment, and renamed into its place: who finds it may also connect.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _turn(path.parent):
            _make_way(path)
            _remove_left_behind(path)
            return _bind(path)
    except DoorError:
        raise
    except BadPath as error:
        raise DoorError(str(error)) from None
    except OSError as error:
        raise DoorError(f"cannot open the control socket {path}: {error.strerror or error}") from None


def _bind(path: Path) -> Bound:
    fresh = path.with_name(f".{path.name[:60]}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0))
    try:
        sock.setblocking(False)
        os.fchmod(sock.fileno(), 0o600)  # Linux gives the file the mode of the socket, less the umask
        with short_name(fresh) as name:
            sock.bind(name)
        fresh.chmod(0o600)
        sock.listen(BACKLOG)
        found = fresh.lstat()
        fresh.rename(path)
    except BaseException:
        sock.close()
        fresh.unlink(missing_ok=True)
        raise
    return Bound(sock, path, found.st_dev, found.st_ino)


def _remove_left_behind(path: Path) -> None:
    """Remove what daemons that were killed between bind and rename left beside the socket."""
    for leftover in path.parent.glob(f".{glob.escape(path.name[:60])}.*"):
        pid = leftover.name.removesuffix(".alias").rpartition(".")[2]
        try:
            if pid.isdecimal():
                os.kill(int(pid), 0)
        except (ProcessLookupError, OverflowError):
            leftover.unlink(missing_ok=True)
        except OSError:
            pass  # another user's, and alive


def _make_way(path: Path) -> None:
    """Make sure that nobody is driven out by taking the path."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        if not path.exists():
            return  # it led to a socket that is gone
    elif not stat.S_ISSOCK(found.st_mode):
        raise DoorError(f"{path}: is not a socket: remove it, or name another with [supervisor] socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            with short_name(path) as name:
                probe.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody is there
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise
        raise DoorError(
            f"{path}: a daemon answers there already{_who(probe)}: stop it, "
            "or give this one a state_dir or socket of its own in [supervisor]"
        )


def _who(probe: socket.socket) -> str:
    try:
        found = Caller.at(probe)
    except OSError:
        return ""
    return f" (pid {found.pid})" if found and found.pid else ""


@contextmanager
def _turn(directory: Path) -> Iterator[None]:
    """Let one daemon at a time look and bind here; one that hangs is not waited for long."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(_TURN_TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_TURN_PAUSE)
            except OSError:
                break  # a file system without locks
        yield
    finally:
        os.close(handle)


class Link(Struct, frozen=True):
    """A symbolic link by which the socket is found below the state directory."""

    path: Path
    leads_to: Path

    def place(self) -> None:
        """Place the link, replacing a left-over socket or link; nothing where there is no way."""
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}.alias")
        try:
            _make_way(self.path)
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(self.leads_to)
            fresh.rename(self.path)
        except (OSError, BadPath):
            pass  # a convenience: the socket itself is open

    def is_in_place(self) -> bool:
        """Whether the link is there, and leads to our socket."""
        try:
            return self.path.readlink() == self.leads_to
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the link while it still leads to our socket."""
        if self.is_in_place():
            with suppress(OSError):
                self.path.unlink()
