"""The contestants: each keeps the same kernels alive, each with its own program, from outside alike.

Owns how each is configured, started and ended.  Measures nothing.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import venv
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from benchmarks import asking
from benchmarks.processes import MARK, children, command_line, is_alive, kill_marked, wait_until

HERE = Path(__file__).parent
ROOT = HERE.parent
CACHE = ROOT / ".bench"
KERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f"]
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
BOOT = 60.0  # seconds, for any number of kernels on a slow machine


class Contestant(ABC):
    """A program that keeps ``count`` kernels alive, in a directory of its own."""

    name: str
    settings = "defaults"
    settle = 0.0
    """Seconds after a start until it takes a death as one of a kernel that ran well."""

    def __init__(self, directory: Path, count: int) -> None:
        self.directory = directory / f"{type(self).__name__}-{count}-{secrets.token_hex(3)}"
        self.directory.mkdir(mode=0o700)
        self.count = count
        self.files = [self.directory / f"kernel-k{number:02}.json" for number in range(count)]
        self._mark = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """The command line of the manager; its files are written first."""

    @property
    def pid(self) -> int:
        """The pid of the manager."""
        assert self._process is not None, "begin comes first"
        return self._process.pid

    def environment(self) -> dict[str, str]:
        """The environment of the manager, and so of its kernels."""
        return os.environ | {
            MARK: self._mark,
            "PYTHONPATH": str(ROOT),
            "JUPYTER_PATH": str(self.directory / "jupyter"),
            "JUPYTER_RUNTIME_DIR": str(self.directory),
            "IPYTHONDIR": str(self.directory.parent / "ipython"),
        }

    def begin(self) -> None:
        """Start the manager; returns at once."""
        spec = self.directory / "jupyter/kernels/bench"
        spec.mkdir(parents=True, exist_ok=True)
        content = {"argv": [*KERNEL, "{connection_file}"], "display_name": "bench", "language": "python"}
        (spec / "kernel.json").write_text(json.dumps(content))
        command = self.command()
        with (self.directory / "manager.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self) -> float:
        """The instant at which every kernel had answered."""
        wait_until(
            lambda: all(map(asking.address, self.files)), BOOT, f"{self.name}: connection files", 0.005
        )
        return asking.wait_answers(self.addresses(), BOOT)

    def addresses(self) -> list[dict[str, object]]:
        """Where the kernels listen."""
        return [found for found in map(asking.address, self.files) if found is not None]

    def kernel(self, number: int) -> int | None:
        """The pid of a kernel that the manager started and that is more than a fork of it by now."""
        file = str(self.files[number])
        for pid in children(self.pid):
            if file in command_line(pid) and is_alive(pid):
                return pid
        return None

    def is_kernel(self, pid: int) -> bool:
        """Whether a process is one of the kernels, by its command line."""
        return bool({str(file) for file in self.files} & set(command_line(pid)))

    def kernels(self) -> list[int]:
        """The pids of all of them."""
        found = (self.kernel(number) for number in range(self.count))
        return [pid for pid in found if pid is not None]

    def kill_manager(self) -> None:
        """SIGKILL, and nothing more, to the manager itself."""
        assert self._process is not None, "begin comes first"
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Ask the manager to end, and see to it that nothing of it is left."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        wait_until(lambda: not kill_marked(self._mark), 30, f"{self.name}: its processes end", 0.02)

    def _write_connection_files(self) -> None:
        """For managers that know nothing of Jupyter, once."""
        for file in self.files:
            if file.exists():
                continue
            content = {f"{channel}_port": free_port() for channel in CHANNELS}
            common = {"transport": "tcp", "ip": "127.0.0.1", "signature_scheme": "hmac-sha256"}
            file.write_text(json.dumps(content | common | {"key": secrets.token_hex(32)}))
            file.chmod(0o600)


class Ours(Contestant):
    """The daemon of this project."""

    name = "kernel-supervisor"
    settings = "defaults, but no delay and no limit for one death after another"

    @property
    def config(self) -> Path:
        """Its file."""
        return self.directory / "kernels.toml"

    def command(self) -> list[str]:
        lines = ["[supervisor]", 'state_dir = "state"', 'runtime_dir = "."', 'log_format = "json"']
        lines += ["[defaults]", 'kernelspec = "bench"', f'cwd = "{self.directory}"', "max_restarts = 0"]
        lines += ["backoff = { initial = 0.0, next = 0.0 }"]
        lines += [f"[kernels.k{number:02}]" for number in range(self.count)]
        self.config.write_text("\n".join(lines) + "\n")
        return [*program(), "run", str(self.config)]


def program() -> list[str]:
    """The command of this project: as it is installed, or else as a module."""
    script = Path(sys.executable).parent / "kernel-supervisor"
    return [str(script)] if script.exists() else [sys.executable, "-m", "supervisor"]


class BareLoop(Contestant):
    """Popen, wait, again: the floor."""

    name = "bare loop"
    settings = "one thread per kernel"

    def command(self) -> list[str]:
        self._write_connection_files()
        output = str(self.directory / "output.log")
        lines = [json.dumps({"argv": [*KERNEL, str(file)], "output": output}) for file in self.files]
        (self.directory / "commands").write_text("\n".join(lines))
        return [sys.executable, str(HERE / "managers/bare_loop.py"), str(self.directory / "commands")]


class JupyterClient(Contestant):
    """The manager and restarter that notebook servers use."""

    name = "jupyter_client"
    settings = "defaults, but no limit of restarts"
    # KernelRestarter.stable_start_time; a death before it changes the ports.
    settle = 14.0

    def command(self) -> list[str]:
        script = str(HERE / "managers/jupyter_client_manager.py")
        return [sys.executable, script, str(self.directory), str(self.count)]


class Supervisord(Contestant):
    """PyPI's supervisor."""

    name = "supervisord"
    settings = "defaults, with autorestart=true"
    settle = 1.5  # startsecs

    def command(self) -> list[str]:
        self._write_connection_files()
        here = self.directory
        lines = ["[supervisord]", "nodaemon=true", f"logfile={here}/supervisord.log"]
        lines += [f"pidfile={here}/supervisord.pid", f"childlogdir={here}"]
        lines += ["[unix_http_server]", f"file={here}/supervisor.sock"]
        lines += ["[rpcinterface:supervisor]"]
        lines += ["supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface"]
        for number, file in enumerate(self.files):
            words = " ".join([*KERNEL, str(file)])
            lines += [f"[program:k{number:02}]", f"command={words}", "autorestart=true"]
        (here / "supervisord.conf").write_text("\n".join(lines) + "\n")
        return [str(supervisord()), "-c", str(here / "supervisord.conf")]

    def environment(self) -> dict[str, str]:
        return _without_our_package(super().environment())


_given: set[int] = set()


def free_port() -> int:
    """A port that is given once only, below those that outgoing connections take."""
    while True:
        port = 12_000 + secrets.randbelow(18_000)
        with socket.socket() as sock:
            if port not in _given and sock.connect_ex(("127.0.0.1", port)) != 0:
                _given.add(port)
                return port


def _without_our_package(environment: Mapping[str, str]) -> dict[str, str]:
    # It would be found in place of supervisord's, which has the same name.
    return {key: value for key, value in environment.items() if key != "PYTHONPATH"}


def supervisord() -> Path:
    """The program, in an environment of its own that is made at the first use."""
    there = CACHE / "supervisord"
    if not (there / "bin/supervisord").exists():
        venv.create(there, with_pip=True, clear=True)
        requirements = str(HERE / "requirements-supervisord.txt")
        pip = [str(there / "bin/python"), "-m", "pip", "install", "--quiet", "--requirement", requirements]
        subprocess.run(pip, check=True)
    return there / "bin/supervisord"


def supervisord_version() -> str:
    """What it says of itself."""
    command = [str(supervisord()), "--version"]
    environment = _without_our_package(os.environ)
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


CONTESTANTS: tuple[type[Contestant], ...] = (BareLoop, Ours, JupyterClient, Supervisord)
