"""The Containerfile, its steps carried out and its command run as pid 1, in a container of systemd-nspawn.

No engine builds it: its base image is the Debian of the other tests, with that
one's Python, and what it installs comes from a directory of wheels.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.packaging.containerfile import command, instructions, of
from tests.systemd import container
from tests.systemd.container import PACKAGES, PROJECT, CommandError, NotPossibleHereError, nspawn
from tests.waiting import wait_for

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]
ENVIRONMENT = dict(line.split("=", 1) for line in of("ENV"))
KERNELS = '[kernels.analysis]\nkernelspec = "python3"\n[kernels.robot]\nkernelspec = "python3"\n'
STOP_TIMEOUT = 10.0  # seconds that docker gives
ORPHAN = """\
import os, time
reading, writing = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        while os.getppid() != 1:
            time.sleep(0.01)
        os.write(writing, str(os.getpid()).encode())
    os._exit(0)
os.wait()
print(os.read(reading, 20).decode())
"""


class Running:
    """The image, run."""

    def __init__(self, image: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log
        entry = next(
            line for line in (image / "etc/passwd").read_text().splitlines() if line.startswith(*of("USER"))
        )
        self._uid, self._gid = entry.split(":")[2:4]

    @property
    def first(self) -> int:
        """What has pid 1 in it, by its pid here; 0: not yet."""
        todo = [self.process.pid]
        while todo:
            pid = todo.pop()
            if self._pids(pid)[-1] == "1" and self._name(pid) == "kernel-supervi":
                return pid
            todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return 0

    def _pids(self, pid: int) -> list[str]:
        return next(
            line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "NSpid" in line
        )

    def _name(self, pid: int) -> str:
        return Path(f"/proc/{pid}/comm").read_text().strip()[:14]

    def exec(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command in it, as ``docker exec`` and the health check have it."""
        inside = [
            "nsenter",
            "--target",
            str(self.first),
            "--all",
            "--setuid",
            self._uid,
            "--setgid",
            self._gid,
        ]
        return subprocess.run(
            [*inside, *words], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    scratch: Path = tmp_path_factory.mktemp("image")
    try:
        container.require_tools(*container.TOOLS, ("nsenter", "util-linux"))
        with container.root_of("container", PACKAGES) as root, _layer(root, scratch) as above:
            _build(above, scratch / "wheels")
            yield above
    except NotPossibleHereError as reason:
        pytest.skip(str(reason))
    except CommandError as error:
        pytest.fail(str(error), pytrace=False)


@contextmanager
def _layer(root: Path, scratch: Path) -> Iterator[Path]:
    """The root with a layer in memory above it, which takes what is written."""
    memory, image = scratch / "memory", scratch / "image"
    memory.mkdir()
    image.mkdir()
    container.run("mount", "-t", "tmpfs", "-o", "mode=755", "image", memory)
    try:
        for name in ("upper", "work"):
            (memory / name).mkdir()
        layers = f"lowerdir={root},upperdir={memory}/upper,workdir={memory}/work"
        container.run("mount", "-t", "overlay", "-o", layers, "image", image)
        try:
            yield image
        finally:
            container.run("umount", "--lazy", image)
    finally:
        container.run("umount", "--lazy", memory)


def _build(image: Path, wheels: Path) -> None:
    shutil.rmtree(image / container.ENVIRONMENT[1:])
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["demo"]
    container.download(wheels, [*wanted, *project["build-system"]["requires"]], image)
    options = [
        f"--bind-ro={wheels}:/wheels",
        "--setenv=PIP_NO_INDEX=1",
        "--setenv=PIP_FIND_LINKS=/wheels",
        "--pipe",
    ]
    for word, rest in instructions():
        if word == "COPY":
            *sources, target = rest.split()
            (image / target[1:]).mkdir(parents=True, exist_ok=True)
            for source in sources:
                inside = "/." if (PROJECT / source).is_dir() else ""
                container.run("cp", "--recursive", f"{PROJECT / source}{inside}", image / target[1:])
        elif word == "RUN":
            container.run(*nspawn(image), *options, "/bin/sh", "-c", rest)


@pytest.fixture
def running(image: Path, tmp_path: Path) -> Iterator[Running]:
    file = tmp_path / "kernels.toml"
    file.write_text(KERNELS)
    words = [*nspawn(image), f"--bind-ro={file}:{ENVIRONMENT['KERNEL_SUPERVISOR_CONFIG']}", "--pipe"]
    words += [f"--setenv={name}={value}" for name, value in ENVIRONMENT.items()]
    words += [
        f"--user={of('USER')[0]}",
        f"--chdir={of('WORKDIR')[0]}",
        f"--kill-signal={of('STOPSIGNAL')[0]}",
    ]
    with (tmp_path / "log").open("wb") as log:
        words += [f"{container.ENVIRONMENT}/bin/{command('ENTRYPOINT')[0]}", *command("CMD")]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    found = Running(image, process, tmp_path / "log")
    try:
        wait_for(lambda: found.first, "the daemon has pid 1")
        wait_for(lambda: found.exec(*command("HEALTHCHECK")).returncode == 0, "it is well")
        found.exec("kernel-supervisor", "start", "--all")  # what another test has stopped: it is on record
        yield found
    finally:
        # All that is in it goes with its pid 1, which outlives a systemd-nspawn that is killed.
        if process.poll() is None:
            os.kill(found.first or process.pid, signal.SIGKILL)
        process.wait()


def test_its_health_check_tells_what_is_not_well(running: Running) -> None:
    assert 0 == running.exec("kernel-supervisor", "stop", "robot").returncode
    assert 0 == running.exec(*command("HEALTHCHECK")).returncode, "it is not wanted up"
    (pid,) = [view["pid"] for view in _status(running) if view["name"] == "analysis"]

    running.exec("kernel-supervisor", "signal", "STOP", "analysis")

    wait_for(lambda: running.exec(*command("HEALTHCHECK")).returncode == 1, "it is told")
    assert f"pid {pid}" in running.exec(*command("HEALTHCHECK")).stdout


def _status(running: Running) -> list[dict[str, object]]:
    kernels: list[dict[str, object]] = json.loads(
        running.exec("kernel-supervisor", "status", "--json").stdout
    )["kernels"]
    return kernels


def test_orphans_that_fall_to_it_are_reaped(running: Running) -> None:
    orphan = running.exec("kernel-supervisor", "exec", "robot", ORPHAN).stdout.strip()
    assert orphan.isdigit()

    look = f"import os; print(os.path.exists('/proc/{orphan}'))"
    wait_for(
        lambda: "False\n" == running.exec("kernel-supervisor", "exec", "robot", look).stdout, "it is reaped"
    )


def test_a_stop_ends_the_kernels_in_order_and_within_the_time_that_docker_gives(running: Running) -> None:
    os.kill(running.process.pid, signal.SIGTERM)

    assert 0 == running.process.wait(STOP_TIMEOUT)
    told = running.log.read_text()
    assert 2 == told.count('"kernel.stopped"')
    assert told.index('"kernel.stopped"') < told.index('"daemon.stopped"')
