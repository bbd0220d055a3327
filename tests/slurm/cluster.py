"""A real Slurm of two nodes on this machine, in a directory of its own; nothing of the system's is touched.

Needs the programs of Debian's ``slurm-wlm`` and ``munge``.  Where it runs as root with the memory controller
of cgroup v1, the memory of jobs is limited.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.waiting import DEADLINE, wait_for

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
NODES = ("n1", "n2")
DAEMONS = ("munged", "slurmctld", *NODES)
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_MEMORY = Path("/sys/fs/cgroup/memory")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
SlurmctldPort={ports[0]}
SlurmctldPidFile={directory}/slurmctld.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/%n.log
SlurmdPidFile={directory}/%n.pid
SlurmdSpoolDir={directory}/spool/%n
StateSaveLocation={directory}/state
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge={min_job_age}
FirstJobId={first_job}
DebugFlags=NO_CONF_HASH
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
{limits}
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=200
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=4000
PartitionName=main Nodes=n1,n2 Default=YES PriorityTier=5 PreemptMode=OFF
PartitionName=short Nodes=n1,n2 MaxTime=1 PriorityTier=5 PreemptMode=OFF
PartitionName=low Nodes=n1,n2 PriorityTier=1 PreemptMode=CANCEL
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF
"""


def reason_not_to_have_one() -> str | None:
    """Why there can be no cluster here, in words."""
    lacking = [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]
    if lacking:
        return f"no {', '.join(lacking)}: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "slurmd starts jobs as root only"


def limits_memory() -> bool:
    """Whether jobs can be ended for want of memory here."""
    return os.geteuid() == 0 and os.access(_MEMORY / "memory.limit_in_bytes", os.R_OK)


class Cluster:
    """munged, slurmctld, and a slurmd for each of two nodes, from ``with`` to its end.

    Partitions: ``main``, ``short`` (a minute at most), ``low``, which is preempted by ``high``.
    """

    def __init__(self, directory: Path, *, min_job_age: int = 300) -> None:
        self.directory = directory
        self.shared = directory / "shared"
        self.env = {**os.environ, "SLURM_CONF": str(directory / "slurm.conf"), "PATH": _PATH}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._min_job_age = min_job_age

    def __enter__(self) -> Cluster:
        for name in ("state", "spool/n1", "spool/n2", "shared"):
            (self.directory / name).mkdir(parents=True)
        self.directory.chmod(0o755)  # munged wants its socket to be reachable
        (self.directory / "munge.key").write_bytes(os.urandom(1024))
        (self.directory / "munge.key").chmod(0o600)
        limits = ["ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none"]
        if limits_memory():
            limits = ["ProctrackType=proctrack/cgroup", "TaskPlugin=task/cgroup"]
            (self.directory / "cgroup.conf").write_text(
                "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainRAMSpace=yes\nAllowedSwapSpace=0\n"
            )
        self._told = {
            "directory": self.directory,
            "host": socket.gethostname(),
            "user": "root",
            "ports": _ports(3),
            "min_job_age": self._min_job_age,
            "limits": "\n".join(limits),
        }
        self._configure(1)
        try:
            for name in DAEMONS:
                self.start(name)
            self.wait_until_idle()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in DAEMONS:
            with suppress(ProcessLookupError, KeyError):
                self.signal(name, signal.SIGCONT)
        with suppress(subprocess.SubprocessError):
            self.run("scancel", "--full", "--signal=KILL", "--user=root")
        for pid in self._steps():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for name in reversed(DAEMONS):
            self.kill(name)
        for group in _MEMORY.parent.glob("*/slurm_n[12]"):
            for part in sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True):
                with suppress(OSError):
                    part.rmdir()
            with suppress(OSError):
                group.rmdir()

    def _configure(self, first_job: int) -> None:
        text = CONFIGURATION.format(**self._told, first_job=first_job)
        (self.directory / "slurm.conf").write_text(text)
        self._first_job = first_job

    def start(self, name: str) -> None:
        """Start one of DAEMONS, and return when it answers.

        A controller gives no number again that its predecessor may have given: if it did, the node that knows
        the first job of that number would be drained ("Duplicate jobid"), and be of no use to other tests.
        """
        of = self.directory
        commands = {
            "munged": [
                *(
                    "munged",
                    "--foreground",
                    "--force",
                    f"--key-file={of}/munge.key",
                    f"--socket={of}/munge.socket",
                ),
                *(
                    f"--pid-file={of}/munged.pid",
                    f"--log-file={of}/munged.log",
                    f"--seed-file={of}/munge.seed",
                ),
            ],
            "slurmctld": ["slurmctld", "-D", "-f", self.env["SLURM_CONF"]],
        }
        command = commands.get(name, ["slurmd", "-D", "-N", name, "-f", self.env["SLURM_CONF"]])
        with (of / f"{name}.output").open("ab") as output:
            self._running[name] = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        if name == "munged":
            wait_for((of / "munge.socket").exists, "the socket of munged")
        elif name == "slurmctld":
            wait_for(self.answers, "slurmctld")
            self._configure(self._first_job + 1000)

    def answers(self) -> bool:
        """Whether the controller does."""
        try:
            return "UP" in self.run("scontrol", "ping")
        except subprocess.SubprocessError:
            return False

    def wait_until_idle(self) -> None:
        """Wait until both nodes are free."""
        wait_for(lambda: set(self.run("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"}, self.told)

    def told(self) -> str:
        """What there is of its logs, for an error."""
        files = [*self.directory.glob("*.log"), *self.directory.glob("*.output")]
        return "\n".join(f"{file.name}: {file.read_text(errors='replace')[-2000:]}" for file in files)

    def run(self, *argv: str, timeout: float = DEADLINE) -> str:
        """What one of Slurm's commands says.  Raises CalledProcessError and TimeoutExpired."""
        done = subprocess.run(
            argv,
            env=self.env,
            cwd=self.shared,
            stdout=subprocess.PIPE,
            text=True,
            timeout=timeout,
            check=True,
        )
        return done.stdout

    def signal(self, name: str, signum: int) -> None:
        """Send a signal to one of DAEMONS, to freeze it (SIGSTOP) say."""
        self._running[name].send_signal(signum)

    def stop_controller(self) -> None:
        """Have the controller end in good order: it forgets nothing."""
        self.run("scontrol", "shutdown", "slurmctld")
        self._running.pop("slurmctld").wait(DEADLINE)

    def kill(self, name: str) -> None:
        """Have one of DAEMONS gone at once, as after a crash; what runs on a node runs on."""
        if (process := self._running.pop(name, None)) is not None:
            process.kill()
            process.wait(DEADLINE)

    def _steps(self) -> list[int]:
        """The processes of ours that run jobs, which outlive the node's daemon."""
        mark = f"SLURM_CONF={self.env['SLURM_CONF']}".encode()
        found = []
        for directory in Path("/proc").iterdir():
            with suppress(OSError):
                if directory.name.isdecimal() and int(directory.name) != os.getpid():
                    names = (directory / "comm").read_text()
                    if names.startswith("slurmstepd") and mark in (directory / "environ").read_bytes().split(
                        b"\0"
                    ):
                        found.append(int(directory.name))
        return found


def _ports(count: int) -> list[int]:
    """Ports that nobody has, below those that any program may be given."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() % 8000, 32_000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")
