"""Installation, the first start, and reload."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from service import ACCOUNT, BAD, PROGRAM, SUPERVISOR, TWO_KERNELS, check, processes_of, run, until, write

# Installation


@check
def the_steps_that_install_tells_bring_the_service_up() -> None:
    write(TWO_KERNELS)

    told = run(PROGRAM, "systemd", "install")

    assert Path("/units/kernel-supervisor.service").read_text() == _installed("kernel-supervisor.service")
    steps = re.findall(r"^  (\S.*)$", told, re.MULTILINE)
    assert any(step.startswith("useradd") for step in steps), told
    for step in steps:
        command = shlex.split(step, comments=True)
        if command[0] != "journalctl":  # which does not end
            run(*command)
    # systemctl has just returned from the start, so READY was told: the door is open, the orders are out.
    assert {"starting", "running"} >= {view["phase"] for view in SUPERVISOR.kernels().values()}
    assert {"analysis", "robot"} == SUPERVISOR.pids().keys()


def _installed(name: str) -> str:
    return (Path("/etc/systemd/system") / name).read_text()


@check
def systemd_finds_nothing_wrong_with_the_units() -> None:
    run(PROGRAM, "systemd", "install", "--instance", "team")

    for unit in ("kernel-supervisor.service", "kernel-supervisor@team.service"):
        found = _complaints("verify", f"/etc/systemd/system/{unit}")
        assert [] == found, found
    home = {"XDG_RUNTIME_DIR": "/run", "HOME": "/root"}
    for unit in ("kernel-supervisor.service", "kernel-supervisor@team.service"):
        source = Path("/units/user") / unit.replace("team", "")
        Path("/tmp", unit).write_text(source.read_text())
        assert [] == _complaints("--user", "verify", f"/tmp/{unit}", env=home)


def _complaints(*words: str, env: dict[str, str] | None = None) -> list[str]:
    """What systemd finds, but that it is older than a directive that it may ignore."""
    lines = run("systemd-analyze", "--man=no", *words, env=env).splitlines()
    return [line for line in lines if "'DelegateSubgroup'" not in line]


@check
def the_kernels_run_as_the_account_and_their_files_are_its_own() -> None:
    pids = SUPERVISOR.settle()

    assert {*pids.values(), SUPERVISOR.pid} <= set(processes_of(ACCOUNT))
    for directory in ("/run/kernel-supervisor", "/var/lib/kernel-supervisor"):
        status = Path(directory).stat()
        assert 0o700 == status.st_mode & 0o777, directory
    assert Path("/run/kernel-supervisor/jupyter/kernel-analysis.json").is_file()
    code = "import os; print(os.getcwd(), sorted(n for n in os.environ if 'NOTIFY' in n or 'DIRECTORY' in n))"
    assert "/home/kernel-supervisor []" == SUPERVISOR.ask("exec", "analysis", code).strip()


@check
def user_code_finds_the_machine_as_it_is() -> None:
    SUPERVISOR.settle()
    Path("/srv/results").mkdir(exist_ok=True)
    Path("/srv/results").chmod(0o777)

    assert "it all works" == SUPERVISOR.ask("exec", "analysis", _USER_CODE).strip()
    assert Path("/tmp/seen-by-all").exists()


_USER_CODE = """
import ctypes, mmap, os, pathlib, socket, subprocess, tempfile, threading
from multiprocessing import shared_memory
pathlib.Path("/tmp/seen-by-all").touch()
for directory in ("~", "/srv/results", "/dev/shm", "/var/tmp"):
    path = os.path.join(os.path.expanduser(directory), "shared")
    os.mkdir(path)
    os.chmod(path, 0o2775)
    os.rmdir(path)
shared_memory.SharedMemory(create=True, size=4096).unlink()
mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1)()
assert socket.create_server(("127.0.0.1", 0)).getsockname()[1]
assert "x" == subprocess.run(["sh", "-c", "echo x"], capture_output=True, text=True).stdout.strip()
assert os.sched_setaffinity(0, os.sched_getaffinity(0)) is None
assert len([open("/dev/null") for _ in range(5000)]) == 5000
print("it all works")
"""


@check
def user_code_may_become_root_where_the_unit_is_edited_for_it() -> None:
    SUPERVISOR.settle()
    up = Path("/srv/id")
    shutil.copy("/usr/bin/id", up)
    up.chmod(0o4755)
    become = "import subprocess as s; print(s.run(['/srv/id', '-nu'], capture_output=True, text=True).stdout)"
    assert ACCOUNT == SUPERVISOR.ask("exec", "analysis", become).strip()
    SUPERVISOR.drop_in("[Service]\nNoNewPrivileges=no\nCapabilityBoundingSet=~\n")
    try:
        SUPERVISOR.systemctl("restart")
        SUPERVISOR.ask("restart", "analysis")

        assert "root" == SUPERVISOR.ask("exec", "analysis", become).strip()
        bounds = "print(*(line for line in open('/proc/self/status') if line.startswith('CapBnd')))"
        assert _capabilities_of_systemd() == SUPERVISOR.ask("exec", "analysis", bounds).split()[1]
    finally:
        SUPERVISOR.drop_in("")
        SUPERVISOR.systemctl("restart")
        SUPERVISOR.ask("restart", "analysis")


def _capabilities_of_systemd() -> str:
    (bounds,) = re.findall(r"^CapBnd:\s+(\w+)$", Path("/proc/1/status").read_text(), re.MULTILINE)
    return str(bounds)


@check
def the_status_line_counts_the_kernels() -> None:
    SUPERVISOR.settle()

    until("STATUS", lambda: "2 running" == SUPERVISOR.show("StatusText"))

    assert 'Status: "2 running"' in SUPERVISOR.systemctl("status", "--no-pager")


# Reload


@check
def a_good_file_is_in_force_when_reload_returns() -> None:
    pids, daemon = SUPERVISOR.settle(), SUPERVISOR.pid
    write(TWO_KERNELS + "[kernels.third]\nkernelspec = 'python3'\n")

    SUPERVISOR.systemctl("reload")

    assert "third" in SUPERVISOR.kernels()
    assert SUPERVISOR.is_active()
    assert pids.items() <= SUPERVISOR.pids().items()
    assert daemon == SUPERVISOR.pid


@check
def a_bad_file_makes_reload_fail_and_nothing_else() -> None:
    pids, daemon = SUPERVISOR.settle(), SUPERVISOR.pid
    write(BAD)

    SUPERVISOR.systemctl("reload", expect=1)

    assert SUPERVISOR.is_active()
    assert (pids, daemon) == (SUPERVISOR.pids(), SUPERVISOR.pid)
    assert any("kernels.third.kernelspec" in str(entry["MESSAGE"]) for entry in SUPERVISOR.journal())
    until("STATUS", lambda: "2 running; the file has mistakes" == SUPERVISOR.show("StatusText"))
    write(TWO_KERNELS)
    SUPERVISOR.systemctl("reload")
    until("STATUS", lambda: "2 running" == SUPERVISOR.show("StatusText"))


@check
def a_file_that_is_no_toml_makes_reload_fail_as_well() -> None:
    pids = SUPERVISOR.settle()
    write("[kernels.analysis\n")

    SUPERVISOR.systemctl("reload", expect=1)

    assert SUPERVISOR.is_active()
    assert pids == SUPERVISOR.pids()
