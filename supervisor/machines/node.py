"""One run of a kernel on the machine that an engine gave it, as the job itself: ``node.py RUN_DIRECTORY``.

Owns what that machine writes into the directory of the run, which both machines see: the place of the
kernel, and its end.  Python 3.6 and its standard library are all it may use, and this one file is copied
there.  Exits as the kernel did: its code, or 128 and its signal; 125 if it started none.

The key is in files of mode 0600 only, never in an argument or in the environment: others see those.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Optional, cast

Fields = Dict[str, Any]

VERSION = 1
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
PASSED_ON = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "CONT")
NOT_STARTED = 125
USAGE_INTERVAL = 30.0  # seconds between what is told of what it uses
STATES = {"TIME LIMIT": "TIMEOUT", "PREEMPTION": "PREEMPTED", "NODE FAILURE": "NODE_FAIL"}


class Run:
    """A run directory, and what is known of this job in it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.job = os.environ.get("SLURM_JOB_ID")
        self.node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self.told = {}  # type: Fields
        self.signals = []  # type: List[int]
        self.kernel = None  # type: Optional[subprocess.Popen[bytes]]
        self.spent = (time.monotonic(), 0.0)
        self.held = []  # type: List[socket.socket]
        self.private = None  # type: Optional[str]

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def claim(self) -> None:
        """A run is for one job: another one, submitted twice or queued again, starts no second kernel."""
        os.close(os.open(self.path("claim"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def put(self, name: str, **fields: object) -> None:
        """Write a file of ours, which nobody meets half of, nor may read but us."""
        job = {"version": VERSION, "mark": self.told.get("mark"), "job": self.job, "node": self.node}
        temporary = self.path(f".{name}.{os.getpid()}.tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump({**job, **fields, "at": time.time()}, file)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, self.path(name))

    def tell_usage(self, *_: object) -> None:
        """What the job uses, if its cgroup can be read; whatever is wrong, the kernel runs on."""
        try:
            told = usage(self.job)
            (since, before), self.spent = self.spent, (time.monotonic(), told["cpu_seconds"])
            core = max(0.0, told["cpu_seconds"] - before) / (self.spent[0] - since)
            self.put("usage.json", **told, core=round(core, 3))
        except Exception as error:
            print(f"node.py: what it uses cannot be told: {error}", file=sys.stderr)
            signal.setitimer(signal.ITIMER_REAL, 0)

    def read(self) -> None:
        with open(self.path("run.json"), encoding="utf-8") as file:
            self.told = json.load(file)

    def pass_on(self, signum: int, _: object = None) -> None:
        """To the group, because what the kernel has started is meant, too."""
        self.signals.append(signum)
        if self.kernel is not None:
            kill_group(self.kernel.pid, signum)

    def choose(self) -> Fields:
        """Where the kernel is to listen."""
        if self.told.get("via") == "ssh":
            # In a directory that is ours alone on this very machine, of a path that a socket takes.
            self.private = tempfile.mkdtemp(prefix="ks-", dir="/tmp")
            address = {"transport": "ipc", "ip": f"{self.private}/k"}  # type: Fields
            address.update((f"{name}_port", number) for number, name in enumerate(CHANNELS, 1))
            return address
        ip = own_ip(self.told.get("toward") or os.environ.get("SLURM_SUBMIT_HOST") or "127.0.0.1")
        # Held as long as the kernel lives, which binds them beside us: nobody else gets one meanwhile.
        self.held = [hold(ip) for _ in CHANNELS]
        address = {"transport": "tcp", "ip": ip}
        address.update((f"{name}_port", s.getsockname()[1]) for name, s in zip(CHANNELS, self.held))
        return address

    def start(self, address: Fields) -> "subprocess.Popen[bytes]":
        told, file = self.told, self.path("connection.json")
        names = {key: told[key] for key in ("key", "signature_scheme", "kernel_name")}
        self.put("connection.json", **names, **address)
        env = {**os.environ, **told["env"], "KERNEL_SUPERVISOR_RUN": told["mark"]}
        env.pop("JPY_PARENT_PID", None)
        argv = [word.replace("{connection_file}", file) for word in told["argv"]]
        for name in PASSED_ON:
            signal.signal(getattr(signal, f"SIG{name}"), self.pass_on)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        output = os.open(told["output"], flags, 0o600) if told.get("output") else None
        self.kernel = subprocess.Popen(
            argv,
            env={variable: value for variable, value in env.items() if value is not None},
            cwd=told.get("cwd"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        for signum in self.signals:
            kill_group(self.kernel.pid, signum)
        return self.kernel


def main(directory: str) -> int:
    """Run the kernel of a run directory to its end; returns the exit code."""
    run = Run(directory)
    try:
        run.claim()
    except OSError as error:
        print(f"node.py: no kernel is started here: {error}", file=sys.stderr)
        return NOT_STARTED
    before = oom_kills(run.job)
    try:
        run.read()
        address = run.choose()
        kernel = run.start(address)
    except Exception as error:  # whatever it is, the other machine is to know
        run.put("end.json", error=f"{type(error).__name__}: {error}", returncode=None, signals=run.signals)
        return NOT_STARTED
    run.put("place.json", **address, **identity(kernel.pid), cgroup=memory_cgroup(run.job))
    signal.signal(signal.SIGALRM, run.tell_usage)
    signal.setitimer(signal.ITIMER_REAL, 1.0, USAGE_INTERVAL)
    returncode = wait(kernel)
    signal.setitimer(signal.ITIMER_REAL, 0)
    oom = None if before is None else (oom_kills(run.job) or 0) - before
    state = state_at_end(run.job)
    run.put("end.json", returncode=returncode, signals=run.signals, state=state, oom=oom, error=None)
    os.unlink(run.path("connection.json"))
    if run.private is not None:
        shutil.rmtree(run.private, ignore_errors=True)
    return returncode if returncode >= 0 else 128 - returncode


def wait(kernel: "subprocess.Popen[bytes]") -> int:
    """Its return code, once what is left of its group, which would keep its ports, was ended."""
    # Not reaped yet: nobody else has its number, whatever signal comes.
    os.waitid(os.P_PID, kernel.pid, os.WEXITED | os.WNOWAIT)
    kill_group(kernel.pid, signal.SIGKILL)
    for name in PASSED_ON:
        signal.signal(getattr(signal, f"SIG{name}"), lambda signum, _: None)
    return kernel.wait()


def kill_group(group: int, signum: int) -> None:
    try:
        os.killpg(group, signum)
    except OSError:
        pass  # it has ended


def own_ip(toward: str) -> str:
    """Our address on the way to that host; nothing is sent."""
    places = socket.getaddrinfo(toward, 9, socket.AF_INET, socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(places[0][4])
        return cast("str", probe.getsockname()[0])


def hold(ip: str) -> socket.socket:
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((ip, 0))
    return held


def identity(pid: int) -> Fields:
    """Who the kernel is on this machine (proc(5))."""
    with open(f"/proc/{pid}/stat") as file:
        start_time = int(file.read().rpartition(")")[2].split()[19])
    with open("/proc/sys/kernel/random/boot_id") as file:
        return {"pid": pid, "script": os.getpid(), "start_time": start_time, "boot_id": file.read().strip()}


def memory_cgroup(job: Optional[str]) -> Optional[str]:
    """The directory of the cgroup that limits the memory of this job; none that others are in, too."""
    with open("/proc/self/cgroup") as file:
        ways = [line.rstrip("\n").split(":", 2) for line in file]
    for _, controllers, path in ways:
        if "memory" in controllers.split(",") and (job is None or f"job_{job}" in path):
            return "/sys/fs/cgroup/memory" + path
    whole = [path for _, controllers, path in ways if not controllers and (not job or f"job_{job}" in path)]
    return "/sys/fs/cgroup" + whole[0] if whole else None


def usage(job: Optional[str]) -> Fields:
    """What the processes of this job use, but for ourselves; without memory that is only a cache."""
    directory = memory_cgroup(job)
    with open(f"{directory}/cgroup.procs") as file:
        pids = [int(line) for line in file if int(line) != os.getpid()]
    told = {"cpu_seconds": 0.0, "threads": 0, "descriptors": 0, "children": len(pids) - 1, "is_exact": False}
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                stat = file.read().rpartition(")")[2].split()
            told["descriptors"] += len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue  # it has ended
        # With its children that have ended (proc(5)).
        told["cpu_seconds"] += sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK")
        told["threads"] += int(stat[17])
    while not os.path.exists(f"{directory}/memory.stat") and f"job_{job}" in os.path.dirname(str(directory)):
        directory = os.path.dirname(str(directory))  # of cgroup v2, which need not count at every level
    is_v1 = os.path.exists(f"{directory}/memory.usage_in_bytes")
    with open(f"{directory}/" + ("memory.usage_in_bytes" if is_v1 else "memory.current")) as file:
        used = int(file.read())
    with open(f"{directory}/memory.stat") as file:
        parts = dict(line.split() for line in file)
    told["memory"] = used - int(parts["total_inactive_file" if is_v1 else "inactive_file"])
    return told


def oom_kills(job: Optional[str]) -> Optional[int]:
    """How often the system ended a process of this job for want of memory; None if it does not tell."""
    directory = memory_cgroup(job)
    for name in ("memory.oom_control", "memory.events"):
        try:
            with open(f"{directory}/{name}") as file:
                counts = dict(line.split() for line in file)
            return int(counts["oom_kill"])
        except (OSError, KeyError, ValueError):
            continue
    return None


def state_at_end(job: Optional[str]) -> Optional[str]:
    """Why Slurm has ended this job, if it has: it soon forgets, but tells it in the output of the job."""
    try:
        if not os.path.isfile("/proc/self/fd/2"):
            return None
        with open("/proc/self/fd/2", "rb") as file:
            file.seek(-min(8192, os.fstat(file.fileno()).st_size), os.SEEK_END)
            said = file.read().decode(errors="replace")
    except OSError:
        return None
    found = re.findall(rf"JOB {job} ON \S+ CANCELLED AT \S+(?: DUE TO ([A-Z ]*[A-Z]))?", said)
    return STATES.get(found[-1], "CANCELLED") if found else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
