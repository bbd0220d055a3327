"""Run in a kernel: all of it that code can see, as JSON on stdout, for comparison with a cold one."""

import builtins
import gc
import json
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import warnings


def disposition(signum):
    found = signal.getsignal(signum)
    return getattr(found, "__name__", str(found))


def spawned():
    """What a process of multiprocessing's says."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(os.path.basename, ("/a/b",)), pool.apply(os.getenv, ("MARKED",))


main = sys.modules["__main__"]
dump = signal.SIGRTMIN + 7  # ours: the stacks, on demand
seen = {
    "sys.path": sys.path,
    "sys.argv": sys.argv,
    "sys.orig_argv": getattr(sys, "orig_argv", None),
    "sys.flags": str(sys.flags),
    "sys.prefix": [sys.prefix, sys.executable, sys.platlibdir],
    "recursion": sys.getrecursionlimit(),
    "environ": {k: v for k, v in os.environ.items() if k != "KERNEL_SUPERVISOR_RUN"},
    "cwd": os.getcwd(),
    "umask": [os.umask(0o22), os.umask(0o22)],
    "limits": {n: resource.getrlimit(getattr(resource, n)) for n in dir(resource) if n.startswith("RLIMIT")},
    "signals": {int(n): disposition(n) for n in signal.valid_signals() if n != dump},
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "wakeup": signal.set_wakeup_fd(-1) == -1,
    "leads": [os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()],
    "nice": os.nice(0),
    "main": [
        main.__name__,
        str(main.__spec__),
        getattr(main, "__file__", None),
        main is sys.modules["__main__"],
    ],
    "stdin": os.readlink("/proc/self/fd/0"),
    "stdout": type(sys.stdout).__module__ + type(sys.stdout).__name__,
    "threads": sorted(t.name for t in threading.enumerate() if t.name not in ("Doorkeeper",)),
    "root logger": [len(logging.root.handlers), logging.root.level],
    "warnings": [str(f[0]) + str(f[2]) for f in warnings.filters],
    "gc": [gc.isenabled(), gc.get_threshold()],
    "count": [get_ipython().execution_count, len(In), get_ipython().kernel.execution_count],
    "history": get_ipython().history_manager.session_number > 0,
    "names": sorted(n for n in get_ipython().user_ns if not n.startswith("_"))[:3],
    "app": get_ipython().parent.parent.__class__.__name__,
    "kernel": type(get_ipython().kernel).__name__,
    "builtins": sorted(set(vars(builtins)))[-5:],
    "spawned": spawned(),
    "inside on the path": [p for p in sys.path if "supervisor/warm" in p],
    "cmdline": open("/proc/self/cmdline").read().rstrip("\0").split("\0")[-2:],
    "mark": os.environ["KERNEL_SUPERVISOR_RUN"].encode() in open("/proc/self/environ", "rb").read(),
}
print(json.dumps(seen))
