"""The real command on a real file, seen from outside: processes, files, events, answers.

Owns what a scenario starts and ends it all, by pid.  Knows nothing of the
program's inside but the mark in the environment of what it launches.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any, TypeVar

from jupyter_client import BlockingKernelClient

from supervisor.control.client import Answer, Client
from supervisor.records.record import MARK_VARIABLE, helper_mark, marked_run
from tests.cli.tools import ROOT, Done, run
from tests.homes import FOREIGN
from tests.kernels.using import hear
from tests.waiting import DEADLINE, wait_for

MINI = ROOT / "tests" / "kernels" / "mini.py"
IPYKERNEL = (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2  # prctl(2), capabilities(7)

T = TypeVar("T")
View = dict[str, Any]
Event = dict[str, Any]


@dataclass(frozen=True)
class Marked:
    """A living process that belongs to a run of a kernel."""

    pid: int
    kernel: str
    generation: int
    leads: bool


class Scene:
    """A directory with a configuration, and the daemons that are run on it one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "kernels.toml"
        self.state_dir = directory / "state"
        self.runtime_dir = directory / "runtime"
        self.socket = self.state_dir / "control.sock"
        self.log = directory / "daemon.log"
        self.alone = directory / "alone"
        self.alone.mkdir()
        self.daemon: subprocess.Popen[bytes] | None = None
        self._begun: list[subprocess.Popen[Any]] = []

    # The file

    def toml(self, *kernels: str, supervisor: str = "", head: str = "", defaults: str = "") -> str:
        """A whole configuration with its own places."""
        return "\n".join(
            [
                head,
                "[supervisor]",
                'state_dir = "state"',
                'runtime_dir = "runtime"',
                'log_format = "json"',
                supervisor,
                *(["[defaults]", defaults] if defaults else []),
                *kernels,
                "",
            ]
        )

    def write(self, *kernels: str, supervisor: str = "", head: str = "", defaults: str = "") -> str:
        """Write the configuration in place, and return it."""
        text = self.toml(*kernels, supervisor=supervisor, head=head, defaults=defaults)
        self.config.write_text(text)
        return text

    def mini(self, name: str, *options: str, **keys: str) -> str:
        """A table of a small kernel that also tells if there ever are two of it; keys are TOML text."""
        argv = [sys.executable, str(MINI), "-f", "{connection_file}", "--alone", str(self.alone / name)]
        return table(name, argv=json.dumps([*argv, *options]), cwd=json.dumps(str(self.directory)), **keys)

    def ipykernel(self, name: str, **keys: str) -> str:
        """A table of a real ipykernel; keys are TOML text."""
        home = json.dumps(str(self.directory / "ipython"))
        return table(name, argv=json.dumps(IPYKERNEL), env=f"{{ IPYTHONDIR = {home} }}", **keys)

    # The daemon

    def environment(self, **more: str) -> dict[str, str]:
        """An environment in which no other daemon, kernel or setting is found."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return kept | {
            "HOME": str(self.directory),
            "PYTHONPATH": str(ROOT),
            "JUPYTER_RUNTIME_DIR": str(self.runtime_dir),
            "DENO_DIR": str(self.directory / "deno"),
            **more,
        }

    def begin(
        self,
        *,
        program: tuple[str, ...] = ("-m", "supervisor"),
        weak: bool = False,
        within: tuple[str, ...] = (sys.executable,),
    ) -> subprocess.Popen[bytes]:
        """Start a daemon and do not wait; ``weak`` takes root's right to read everything from it.

        ``within`` is how its interpreter is called.
        """
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                [*within, *program, "run", str(self.config)],
                cwd=self.directory,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=weaken if weak else None,  # noqa: PLW1509  two system calls
            )
        self._begun.append(self.daemon)
        return self.daemon

    def start(
        self, *running: str, weak: bool = False, within: tuple[str, ...] = (sys.executable,)
    ) -> subprocess.Popen[bytes]:
        """Start a daemon, and wait until it answers and these kernels run."""
        daemon = self.begin(weak=weak, within=within)
        wait_for(lambda: daemon.poll() is not None or self.answers(), "the daemon answers")
        assert daemon.poll() is None, self.log.read_text()
        self.wait_running(*running)
        return daemon

    def kill(self) -> None:
        """SIGKILL the daemon."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait(DEADLINE)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Signal the daemon, and return how it ended; one that failed shows its log."""
        assert self.daemon is not None
        self.daemon.send_signal(signum)
        code = self.daemon.wait(DEADLINE)
        assert 0 == code, self.log_end()
        return code

    def answers(self) -> bool:
        """Whether the present daemon answers."""
        try:
            status = self.ask("GET", "/v1/status")
        except Exception:
            return False
        return self.daemon is not None and status.body.get("pid") == self.daemon.pid

    def ask(
        self, method: str, target: str, body: Mapping[str, Any] | None = None, *, timeout: float = DEADLINE
    ) -> Answer:
        """One request at the control door."""
        return Client([self.socket]).ask(method, target, body, timeout=timeout)

    def order(self, verb: str, name: str, **fields: Any) -> Answer:
        """An order, and what came of it."""
        return self.ask("POST", f"/v1/kernels/{name}/{verb}", fields)

    def command(self, *words: str, stdin: str | None = None) -> Done:
        """The command line, about this daemon."""
        return run(self.directory, *words, stdin=stdin or "", env=self.environment())

    # What is so

    def status(self) -> dict[str, Any]:
        return self.ask("GET", "/v1/status").body

    def kernel(self, name: str) -> View:
        """One kernel of ``status``; empty if there is none."""
        return next((view for view in self.status()["kernels"] if view["name"] == name), {})

    def pids(self) -> dict[str, int]:
        """The pid of each kernel."""
        return {view["name"]: view["pid"] for view in self.status()["kernels"]}

    def wait_phase(self, name: str, phase: str) -> View:
        def found() -> View | None:
            view = self.kernel(name)
            return view if view.get("phase") == phase else None

        found_view = wait_for(found, f"{name} is {phase}")
        assert found_view is not None
        return found_view

    def wait_running(self, *names: str, after: int = 0) -> None:
        """Wait until these kernels run, in a run later than ``after``."""

        def run() -> bool:
            views = {view["name"]: view for view in self.status()["kernels"]}
            return all(
                name in views and views[name]["phase"] == "running" and views[name]["generation"] > after
                for name in names
            )

        if names:
            wait_for(run, lambda: f"{', '.join(names)} run; {self.log_end()}")

    def log_end(self) -> str:
        return self.log.read_text()[-2000:] if self.log.exists() else ""

    def events(self, name: str | None = None, **fields: object) -> list[Event]:
        """The lifecycle events so far, of this name and with these fields."""
        file = self.state_dir / "events.jsonl"
        text = file.read_bytes() if file.exists() else b""
        # The last line may be on its way.
        lines = [json.loads(line) for line in text.split(b"\n")[:-1]]
        wanted = fields | ({"event": name} if name else {})
        return [line for line in lines if wanted.items() <= line.items()]

    def wait_event(self, name: str, count: int = 1, **fields: object) -> Event:
        """Wait for the ``count``-th such event."""
        return wait_for(
            lambda: self.events(name, **fields)[count - 1 : count],
            lambda: f"{name} {fields} for the {count}. time; {self.log_end()}",
        )[0]

    def processes(self, kernel: str | None = None) -> list[Marked]:
        """The living processes of runs of these kernels, whoever knows of them."""
        return [
            found
            for pid, value in marks()
            if (found := self._marked(pid, value)) is not None and kernel in (None, found.kernel)
        ]

    def helpers(self, what: str = "") -> list[int]:
        """The processes that a daemon has for itself, as "standby" and "zygote"."""
        return [pid for pid, value in marks() if value.startswith(helper_mark(self.state_dir, what))]

    def leaders(self, kernel: str | None = None) -> list[int]:
        """The kernel processes themselves, without their children."""
        return [found.pid for found in self.processes(kernel) if found.leads]

    def _marked(self, pid: int, value: str) -> Marked | None:
        run = marked_run(value, self.state_dir)
        try:
            return None if run is None else Marked(pid, *run, os.getsid(pid) == pid)
        except OSError:
            return None  # it has ended

    def record(self, kernel: str) -> dict[str, Any]:
        """What is on record of a kernel; empty if nothing is."""
        file = self.state_dir / "kernels" / f"{kernel}.json"
        return json.loads(file.read_bytes()) if file.exists() else {}

    def wait_recorded(self, *kernels: str) -> None:
        """Wait until it is on record that these kernels run, and nothing more is being written."""

        def quiet() -> bool:
            recorded = all(
                self.record(name).get("ready") and self.record(name)["process"]["pid"] == self.pids()[name]
                for name in kernels
            )
            return recorded and not list((self.state_dir / "kernels").glob(".*.tmp"))

        wait_for(quiet, f"{', '.join(kernels)} are on record")

    def connection_file(self, kernel: str) -> Path:
        return self.runtime_dir / f"kernel-{kernel}.json"

    def doubles(self) -> list[str]:
        """What the small kernels told of a second process of theirs."""
        return [file.read_text() for file in self.alone.glob("*.two")]

    # Clients

    @contextmanager
    def client(self, kernel: str) -> Iterator[BlockingKernelClient]:
        """A stock client of a kernel, connected."""
        made = BlockingKernelClient(connection_file=str(self.connection_file(kernel)))
        made.load_connection_file()
        # Without its heartbeat, whose thread may still be about to begin when a quick client is closed.
        made.start_channels(hb=False)
        try:
            hear(made)
            yield made
        finally:
            made.stop_channels()
            made.context.destroy(linger=0)

    def run(self, kernel: str, code: str) -> str:
        """What code prints in a kernel."""
        with self.client(kernel) as client:
            return printed(client, code)

    def execute(self, kernel: str, code: str) -> None:
        """Have code executed that prints nothing."""
        with self.client(kernel) as client:
            client.execute(code, reply=True, timeout=DEADLINE, allow_stdin=False)

    # The end

    def clean_up(self) -> None:
        """End all that was begun here, by pid."""
        for daemon in self._begun:
            if daemon.poll() is None:
                daemon.kill()
            daemon.wait(DEADLINE)
        # Until none is left: one may have been on its way while we looked.
        wait_for(self._kill_all, f"nothing is left of {self.directory}")

    def _kill_all(self) -> bool:
        left = [*self.helpers(), *(each.pid for each in self.processes())]
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return not left


def marks() -> Iterator[tuple[int, str]]:
    """Each living process that is marked, by whomever, and its mark."""
    prefix = f"{MARK_VARIABLE}=".encode()
    for pid in (int(each.name) for each in Path("/proc").iterdir() if each.name.isdecimal()):
        try:
            content = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue  # it has ended, or is somebody else's
        for value in content.split(b"\0"):
            if value.startswith(prefix):
                yield pid, value[len(prefix) :].decode(errors="replace")
                break


def weaken() -> None:
    """Take root's right to read everything from this process, before it becomes a command."""
    if os.geteuid() == 0:
        prctl = ctypes.CDLL(None).prctl
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def table(name: str, **keys: str) -> str:
    """A ``[kernels.NAME]`` table; the values are TOML text."""
    return "\n".join([f"[kernels.{name}]", *(f"{key} = {value}" for key, value in keys.items())])


def send(client: BlockingKernelClient, code: str) -> None:
    """Have code executed and wait for nothing; for what never answers."""
    client.execute(code, store_history=False, allow_stdin=False)


def printed(client: BlockingKernelClient, code: str, deadline: float = DEADLINE) -> str:
    """What code prints, be it an empty line.

    Asked again when the answer is lost with a process, so it must bear repetition.
    """
    until = time.monotonic() + deadline
    while time.monotonic() < until:
        if (text := _asked(client, code, patience=3.0)) is not None:
            return text.strip()
    raise AssertionError(f"no answer within {deadline:g} s to {code!r}")


def _asked(client: BlockingKernelClient, code: str, patience: float) -> str | None:
    asked = client.execute(code, store_history=False, allow_stdin=False)
    text, is_idle, until = "", False, time.monotonic() + patience
    while (left := until - time.monotonic()) > 0:
        try:
            message = client.get_iopub_msg(timeout=left)
        except Empty:
            return None
        if message["parent_header"].get("msg_id") != asked:
            continue
        content = message["content"]
        text += content.get("text", "") if message["msg_type"] == "stream" else ""
        if message["msg_type"] == "error":
            raise AssertionError(f"{code!r} raised {content['ename']}: {content['evalue']}")
        # Deno tells that it is idle before it tells what was printed.
        is_idle = is_idle or content.get("execution_state") == "idle"
        if is_idle and text:
            return text
    return None
