"""A Debian with a real systemd, booted in a container to run the checks.

Owns the root file system (kept between runs, outside of the project), what is
installed into it, and the boot.  The root is never written to by a boot: an
overlay in memory takes that, and goes with the container.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
ENVIRONMENT = "/opt/kernel-supervisor"  # where the units as shipped expect it
PACKAGES = ("systemd", "systemd-sysv", "libpam-systemd", "dbus", "python3", "python3-venv")
TOOLS = (("systemd-nspawn", "systemd-container"), ("debootstrap", "debootstrap"))
BOOT_TIMEOUT = 480.0
# Read before a test has a home of its own: the root takes minutes to make.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
_RECIPE = "1"  # another number has the root made anew

CHECKS_UNIT = """\
[Unit]
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
StandardOutput=file:/results/output
StandardError=inherit
ExecStart=/usr/bin/python3 -B /checks/checks.py /results/results.jsonl
"""


class NotPossibleHereError(Exception):
    """This machine cannot boot a container; the text says why."""


class CommandError(Exception):
    """A command failed; the text has the end of its output."""


def run(*command: str | Path, timeout: float = 600.0) -> str:
    """Run a command; its output.  Raises CommandError."""
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
    )
    text = done.stdout.decode(errors="replace")
    if done.returncode:
        words = " ".join(map(str, command))
        raise CommandError(f"{words}: status {done.returncode}: {text[-2000:]}")
    return text


def boot_and_check(scratch: Path, wanted: Sequence[str]) -> dict[str, dict[str, object]]:
    """Boot the container, run the wanted checks in it; what came of each, by its name."""
    require_tools(*TOOLS)
    with root_of("container", PACKAGES) as root:
        install_project(root, scratch)
        return boot(root, scratch, wanted)


def require_tools(*tools: tuple[str, str]) -> None:
    """See that programs are there, of these packages.  Raises NotPossibleHereError."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise NotPossibleHereError("needs root on Linux, to make a root file system and boot it")
    for tool, package in tools:
        if shutil.which(tool) is None:
            raise NotPossibleHereError(f"needs {tool}: apt-get install {package}")


# The root file system


@contextmanager
def root_of(kind: str, packages: Sequence[str], suite: str | None = None) -> Iterator[Path]:
    """The root with all but the project in it, for one run at a time."""
    cache = CACHE / "kernel-supervisor-tests"
    cache.mkdir(parents=True, exist_ok=True)
    wanted = _requirements()
    ours, mirror = _suite_and_mirror()
    suite = suite or ours
    key = hashlib.sha256(json.dumps([_RECIPE, suite, packages, wanted]).encode()).hexdigest()[:12]
    with (cache / f"lock-{kind}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root = cache / f"root-{kind}-{key}"
        if not root.exists():
            for left in cache.glob(f"root-{kind}-*"):
                shutil.rmtree(left)
            new = cache / f"root-{kind}-new"
            _make_root(new, suite, mirror, packages, wanted)
            new.rename(root)
        yield root


def _requirements() -> list[str]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], "ipykernel"]


def _suite_and_mirror() -> tuple[str, str]:
    """What apt on this machine takes its packages from; a container of the same suite is made."""
    try:
        release = platform.freedesktop_os_release()["VERSION_CODENAME"]
        targets = run("apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)", "Created-By: Packages")
    except (OSError, KeyError, CommandError) as error:
        raise NotPossibleHereError(f"needs a Debian, to make another one of: {error}") from None
    for line in targets.splitlines():
        suite, _, site = line.partition(" ")
        if suite == release:
            return suite, site
    raise NotPossibleHereError(f"apt on this machine has no source for {release}")


def _make_root(root: Path, suite: str, mirror: str, debian: Sequence[str], wanted: Sequence[str]) -> None:
    shutil.rmtree(root, ignore_errors=True)  # what a run that was ended left
    packages = f"--include={','.join(debian)}"
    try:
        run("debootstrap", "--variant=minbase", packages, suite, root, mirror)
    except CommandError as error:
        raise NotPossibleHereError(str(error)) from None
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    wheels = root / "wheels"
    try:
        download(wheels, wanted, root)
    except CommandError as error:
        raise NotPossibleHereError(f"the dependencies cannot be fetched: {error}") from None
    run("chroot", root, "python3", "-m", "venv", ENVIRONMENT)
    _pip(root, "install", "--find-links=/wheels", *wanted)
    shutil.rmtree(wheels)


_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


def download(into: Path, wanted: Sequence[str], root: Path) -> None:
    """Fetch wheels for the container's Python with pip as it is set up here."""
    version = run("chroot", root, "python3", "-c", _VERSION).strip()
    machine = platform.machine()
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in (36, 35, 34, 31, 28, 27, 26, 17)]
    platforms.append(f"--platform=manylinux2014_{machine}")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", f"--dest={into}"]
    run(*pip, f"--python-version={version}", *platforms, *wanted)


def _pip(root: Path, verb: str, *arguments: str) -> None:
    """Pip in the container's environment, without what this machine's variables tell a pip."""
    pip = [f"{ENVIRONMENT}/bin/python", "-m", "pip", "--isolated", verb, "--quiet", "--no-index"]
    run("chroot", root, "env", "-i", "PATH=/usr/bin:/bin", *pip, *arguments)


def install_project(root: Path, scratch: Path) -> None:
    """Put the project in as its users get it: as a wheel, built from the files as they are."""
    wheels = root / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={wheels}", PROJECT)
    (wheel,) = wheels.glob("*.whl")
    _pip(root, "install", "--no-deps", "--force-reinstall", f"/wheels/{wheel.name}")
    shutil.rmtree(wheels)
    shutil.copytree(PROJECT / "systemd", scratch / "units")


# The boot


def boot(
    root: Path, scratch: Path, wanted: Sequence[str], more: Sequence[str] = (), unit_text: str = CHECKS_UNIT
) -> dict[str, dict[str, object]]:
    """Boot the root, with more options of nspawn, to make the wanted checks."""
    results, checks = scratch / "results", scratch / "checks"
    results.mkdir()
    checks.mkdir()
    for source in HERE.glob("*.py"):
        shutil.copy(source, checks)
    (checks / "wanted").write_text("\n".join(wanted))
    unit = scratch / "checks.service"
    unit.write_text(unit_text)
    binds = [
        f"--bind={results}:/results",
        f"--bind-ro={checks}:/checks",
        f"--bind-ro={scratch / 'units'}:/units",
        f"--bind-ro={unit}:/etc/systemd/system/checks.service",
    ]
    command = [*nspawn(root), "--volatile=overlay", *binds, *more, "--console=pipe", "--boot"]
    wait([*command, "systemd.unit=checks.service", "systemd.wants=multi-user.target"], scratch / "console")
    return read(results / "results.jsonl")


def nspawn(root: Path) -> list[str]:
    """How a container is run here.  Raises NotPossibleHereError."""
    command = ["systemd-nspawn", "--quiet", f"--directory={root}", "--private-network"]
    if not Path("/run/systemd/system").is_dir():  # no systemd here that would give it a place
        command += ["--register=no", "--keep-unit"]
    try:
        run(*command, "--volatile=overlay", "--pipe", "/bin/true", timeout=60)
    except (CommandError, subprocess.TimeoutExpired) as error:
        raise NotPossibleHereError(f"no container can be run: {error}") from None
    return command


def wait(command: Sequence[str], console: Path, timeout: float = BOOT_TIMEOUT) -> None:
    """Run what boots, for so many seconds at most."""
    with console.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass  # the results that are there count; a check without one has failed
        finally:
            if process.poll() is None:
                process.kill()  # the container's processes end with its init
                process.wait()


def read(results: Path) -> dict[str, dict[str, object]]:
    """What came of each check, by its name."""
    if not results.exists():
        return {}
    found = [json.loads(line) for line in results.read_text().splitlines()]
    return {str(result["name"]): result for result in found}
