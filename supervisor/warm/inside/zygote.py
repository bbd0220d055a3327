"""A zygote: one single-threaded Python that has imported what kernels need, and forks them.

Linux only.  The descriptor is one end of a SOCK_SEQPACKET pair; end of file on it ends the zygote.  A request
is one datagram with three descriptors: cord, output, order.  The *cord* is the child's life line: on it the
child tells its pid and waits for "go", so that no process runs of which nobody knows; cut, it leaves.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .app import EX_STARTUP, StartupFailed, boot, give_up, record_crashes, serve
from .prepared import read_order, resemble

MARK = "KERNEL_SUPERVISOR_RUN"
# What the first cell imports beyond the kernel's own modules; a version may lack some.
MORE = """ipykernel.ipkernel ipykernel.zmqshell ipykernel.heartbeat ipykernel.iostream ipykernel.displayhook
ipykernel.debugger ipykernel.subshell_manager ipykernel.control ipykernel.shellchannel IPython.core.completer
IPython.core.completerlib IPython.core.async_helpers IPython.core.history IPython.core.magics
IPython.core.profiledir IPython.core.debugger IPython.core.logger IPython.core.oinspect
IPython.core.latex_symbols IPython.utils.wildcard IPython.utils.tokenutil zmq.eventloop.zmqstream zmq._future
tornado.platform.asyncio tornado.queues tornado.gen sqlite3 jedi pdb bdb asyncio.selector_events
comm.base_comm IPython.extensions.storemagic psutil faulthandler runpy""".split()  # noqa: SIM905 - fewer lines
# A thread that comes to no harm (allocators of Arrow): 40 of 40 forks that used it worked.
HARMLESS = {"jemalloc_bg_thd"}
# How long the status of a dead child can be read before it is reaped, in seconds.
UNREAPED = 0.2
# As much of a traceback goes into a datagram.
REASON = 4000


class _Shown:
    """What /proc shows of a forked process is the zygote's: written over in place, in the room of padding."""

    def __init__(self) -> None:
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        self._argv, self._argv_end, env, env_end = (int(fields[at]) for at in (45, 46, 47, 48))
        at = (b"\0" + ctypes.string_at(env, env_end - env)).find(f"\0{MARK}=".encode())
        self._mark, self._room = env + at + len(MARK) + 1, len(os.environb[MARK.encode()])

    def argv(self, words: list[str]) -> None:
        room = self._argv_end - self._argv
        text = b"\0".join(os.fsencode(word) for word in words)[: room - 1]
        ctypes.memmove(self._argv, text.ljust(room, b"\0"), room)

    def mark(self, value: str) -> None:
        raw = os.fsencode(value)
        if len(raw) > self._room:
            raise RuntimeError("the mark is too long")
        ctypes.memmove(self._mark, raw.ljust(self._room, b"\0"), self._room)
        os.environ[MARK] = value


def main(fd: int, _: list[str]) -> None:
    """Serve: the first datagram says what to import (``preload``) and how to look (``mark``, ``shown``)."""
    control = socket.socket(fileno=fd)
    wishes = json.loads(control.recv(1 << 17))
    shown = _Shown()
    shown.argv(wishes["shown"])
    shown.mark(wishes["mark"])
    began = time.time_ns()
    # As ipykernel does before a cell can import matplotlib, which looks at it once.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    reason = _preload(wishes["preload"]) or _unsafe()
    prints = os.memfd_create("fingerprint")
    os.write(prints, json.dumps(_fingerprint(began)).encode())
    hello = {"unfit": reason, "ipykernel": sys.modules["ipykernel"].__version__ if not reason else ""}
    socket.send_fds(control, [json.dumps(hello).encode()], [prints])
    os.close(prints)
    if not reason:
        gc.collect()
        gc.freeze()  # shared pages stay shared: no collection writes into them
        _serve(control, shown)
    os._exit(0)  # nothing of ours to tidy up, whatever the imported modules think


def _preload(names: list[str]) -> str | None:
    for name in ["ipykernel.kernelapp", *names, *MORE]:
        try:
            importlib.import_module(name)
        except BaseException as error:  # noqa: PERF203 - each for itself
            if name not in MORE:
                return f"import {name}: {type(error).__name__}: {error}"
    from IPython.core.inputtransformer2 import TransformerManager

    # Else each kernel would compile the patterns of its first cell anew.
    TransformerManager().transform_cell("pass\n")  # type: ignore[no-untyped-call]
    return None


def _unsafe() -> str | None:
    """Why this process must not be forked."""
    # BLAS and OpenMP end their threads at a fork by themselves (pthread_atfork): one fork, then count.
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    tasks = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    own = Path("/proc/self/comm").read_text().strip()
    if len(tasks) > 1 and (names := sorted({name for name in tasks if name != own} - HARMLESS)):
        return f"threads live after the imports: {', '.join(names)}"
    if sum(name == own for name in tasks) > 1:
        return "a thread lives after the imports"
    import zmq

    if zmq.Context._instance is not None:
        return "a zmq context exists after the imports"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "CUDA is initialised"
    return None


def _fingerprint(began: int) -> dict[str, Any]:
    """Of every file that was imported, and of the interpreter; ``None`` for what changed meanwhile."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    found: dict[str, Any] = {}
    for path in [sys.executable, *(file for file in files if isinstance(file, str))]:
        try:
            stat = os.stat(path)
        except OSError:
            continue  # within an archive
        changed = began <= stat.st_mtime_ns <= time.time_ns()
        found[path] = None if changed else [stat.st_mtime_ns, stat.st_size, stat.st_ino]
    return found


def _serve(control: socket.socket, shown: _Shown) -> None:
    """Fork on request; returns at the end of the zygote, never in a child."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    children: dict[int, int] = {}
    ended: list[tuple[float, int]] = []
    is_retired = False
    while not is_retired or children or ended:
        ready = poll.poll(UNREAPED * 1000 if ended else None)
        for fd, _ in ready:
            if fd in children:
                poll.unregister(fd)
                os.close(fd)
                ended.append((time.monotonic() + UNREAPED, children.pop(fd)))
        while ended and ended[0][0] <= time.monotonic():
            os.waitpid(ended.pop(0)[1], 0)
        if all(fd != control.fileno() for fd, _ in ready):
            continue
        data, fds, _, _ = socket.recv_fds(control, 1 << 17, 3)
        request = json.loads(data) if data else {}
        is_retired = is_retired or "retire" in request
        if not data:
            return
        pid = _fork(control, request, fds, list(children), shown) if fds else 0
        for fd in fds:
            os.close(fd)
        if pid:
            pidfd = os.pidfd_open(pid)
            children[pidfd] = pid
            poll.register(pidfd, select.POLLIN)


def _fork(
    control: socket.socket, request: dict[str, Any], fds: list[int], pidfds: list[int], shown: _Shown
) -> int:
    try:
        pid = os.fork()
    except OSError as error:
        with socket.socket(fileno=os.dup(fds[0])) as cord:
            cord.send(json.dumps({"error": error.errno}).encode())
        return 0
    if pid == 0:
        control.close()
        for fd in pidfds:
            os.close(fd)
        _become(request, shown, socket.socket(fileno=fds[0]), fds[1], fds[2])
        sys.exit()  # in the ordinary way, with all that was registered for it
    return pid


def _become(request: dict[str, Any], shown: _Shown, cord: socket.socket, output: int, order_fd: int) -> None:
    """The child, from its first moment to its end as a kernel."""
    os.setsid()
    shown.mark(request["mark"])
    shown.argv(request["shown"])
    cord.set_inheritable(False)
    _settle(output)
    order = read_order(order_fd)
    own = os.pidfd_open(os.getpid())
    _say(cord, {"pid": os.getpid()}, [own])
    os.close(own)
    resemble(order, request["words"])
    is_parked = request["park"]
    if not is_parked:
        _wait_go(cord)
    record_fd = record_crashes()
    try:
        app = boot(request["words"], order, record_fd, held=is_parked)
    except StartupFailed as error:
        if not is_parked:
            give_up(order, record_fd, error)
        _say(cord, {"failed": str(error)[-REASON:]})
        os._exit(EX_STARTUP)
    if is_parked:
        _say(cord, {"parked": True})
        order = _take_place(cord, shown, record_fd)
        app.release()
    cord.close()
    serve(app, order, record_fd)


def _settle(output: int) -> None:
    """Make this process the kernel's own: descriptors, signals, randomness."""
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(signum) not in (signal.SIG_DFL, None):
            signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for fd in (1, 2):
        os.dup2(output, fd)
    os.close(output)
    # `random` and ssl see to themselves; secrets and uuid4 ask the system.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _say(cord: socket.socket, what: dict[str, Any], fds: Sequence[int] = ()) -> None:
    try:
        socket.send_fds(cord, [json.dumps(what).encode()], fds)
    except OSError:
        os._exit(0)  # nobody hears it; an ordinary exit would wait for sockets that nobody has bound


def _wait_go(cord: socket.socket, descriptors: int = 0) -> list[int]:
    data, fds, _, _ = socket.recv_fds(cord, 1024, descriptors)
    if not data:
        os._exit(0)  # the supervisor is gone, or has no use for us
    return list(fds)


def _take_place(cord: socket.socket, shown: _Shown, record_fd: int) -> dict[str, Any]:
    """Wait until the kernel before is dead; its mark first: from then on whoever looks finds a run."""
    order_fd, output = _wait_go(cord, 2)
    order = read_order(order_fd)
    shown.mark(order["mark"])
    with contextlib.suppress(OSError):  # whoever takes up what the supervisor has left finds a run
        cord.send(b'{"taken": true}')
    said, file = os.pread(record_fd, 1 << 20, 0), os.fstat(record_fd)
    copies = (getattr(stream, "_original_stdstream_copy", None) for stream in (sys.stdout, sys.stderr))
    for fd in {1, 2, record_fd, *(copy for copy in copies if copy is not None)}:
        if os.path.samestat(os.fstat(fd), file):  # not what ipykernel captures
            os.dup2(output, fd, inheritable=fd <= 2)
    os.close(output)
    os.write(record_fd, said)
    return order
