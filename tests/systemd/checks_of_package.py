"""The Debian package: installed, upgraded with living kernels, removed, purged."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from service import (
    ACCOUNT,
    DEADLINE,
    PROGRAM,
    SETTINGS,
    SUPERVISOR,
    Service,
    check,
    is_there,
    run,
    until,
    write,
)

KERNEL = """\
[kernels.{}]
argv = ["/opt/kernel-supervisor/bin/python", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]
"""
TWO = KERNEL.format("analysis") + KERNEL.format("robot")
TEAM = Service("kernel-supervisor@team", client=("--socket", "/run/kernel-supervisor-team/control.sock"))
HOME, STATE = Path("/var/lib/jupyter-kernels"), Path("/var/lib/kernel-supervisor")
UNIT = "kernel-supervisor.service"


def _dpkg(*words: str, expect: int | None = 0) -> str:
    return run("dpkg", *words, expect=expect, env={"DEBIAN_FRONTEND": "noninteractive"})


def _version() -> str:
    return str(json.loads(SUPERVISOR.ask("status", "--json"))["version"])


def _up() -> dict[str, int]:
    """The package installed, and the service and an instance up with living kernels that know something."""
    if not Path(PROGRAM).exists():
        _dpkg("--install", "/debs/old.deb")
    write(TWO)
    write(KERNEL.format("theirs"), "team")
    for service in (SUPERVISOR, TEAM):
        service.systemctl("enable", "--now")
    pids = _pids()
    SUPERVISOR.ask("exec", "analysis", "x = 41")
    return pids


def _pids() -> dict[str, int]:
    return {**SUPERVISOR.pids(), **TEAM.pids()}


def _assert_they_know_it() -> None:
    assert "42" == SUPERVISOR.ask("exec", "analysis", "print(x + 1)").strip()


@check
def it_installs_and_neither_enables_nor_starts_anything() -> None:
    told = _dpkg("--install", "/debs/old.deb")

    assert "hides the unit" not in told
    assert run(PROGRAM, "--version").startswith("kernel-supervisor ")
    assert "disabled" == SUPERVISOR.systemctl("is-enabled", expect=1).strip()
    assert "inactive" == SUPERVISOR.show("ActiveState")
    assert [] == [*Path("/etc/systemd").rglob("*.wants/kernel-supervisor*")]
    entry = run("getent", "passwd", ACCOUNT).strip().split(":")
    assert [str(HOME), "/usr/sbin/nologin"] == entry[5:]
    assert (0o700, ACCOUNT) == (HOME.stat().st_mode & 0o777, HOME.owner())
    assert "" == _dpkg("--verify", "kernel-supervisor")
    shared = _dpkg("--listfiles", "kernel-supervisor")
    for page in ("man1/kernel-supervisor.1.gz", "man1/jupyter-supervisor.1.gz", "man5/kernels.toml.5.gz"):
        assert f"/usr/share/man/{page}" in shared
    assert "complete -o" in Path("/usr/share/bash-completion/completions/kernel-supervisor").read_text()
    lines = run("systemd-analyze", "--man=no", "verify", f"/usr/lib/systemd/system/{UNIT}").splitlines()
    assert [] == [line for line in lines if "'DelegateSubgroup'" not in line]


@check
def its_program_runs_without_what_else_is_installed_and_finds_its_units() -> None:
    run("mv", "/opt/kernel-supervisor", "/opt/away")
    try:
        assert f"{SETTINGS}/kernels.toml" in run(PROGRAM, "check", expect=78)
        told = run(PROGRAM, "systemd", "install")
    finally:
        run("mv", "/opt/away", "/opt/kernel-supervisor")

    assert f"/usr/lib/systemd/system/{UNIT} is as it is to be" in told
    assert not Path(f"/etc/systemd/system/{UNIT}").exists()


@check
def kernels_run_as_the_account_in_its_home() -> None:
    pids = _up()

    assert {ACCOUNT} == {Path(f"/proc/{pid}").owner() for pid in pids.values()}
    assert str(HOME) == SUPERVISOR.ask("exec", "robot", "import os; print(os.getcwd())").strip()
    assert "" == SUPERVISOR.ask("health")


@check
def an_upgrade_leaves_the_kernels_alive_with_their_memory() -> None:
    pids, daemon, version = _up(), SUPERVISOR.pid, _version()

    _dpkg("--install", "/debs/new.deb")

    assert f"{version}+next" == _version()
    assert daemon != SUPERVISOR.pid
    assert pids == _pids()
    _assert_they_know_it()
    assert f"{version}+next" == json.loads(TEAM.ask("status", "--json"))["version"]


@check
def an_upgrade_does_not_disturb_what_a_kernel_executes() -> None:
    pids = _up()
    _dpkg("--install", "/debs/old.deb")
    begun, go = Path("/tmp/begun"), Path("/tmp/go")
    code = f"open('{begun}', 'w').close()\nimport os\nwhile not os.path.exists('{go}'): pass\nprint(x + 1)"
    with subprocess.Popen([PROGRAM, "exec", "analysis", code], stdout=subprocess.PIPE) as cell:
        until("it executes", begun.exists)

        _dpkg("--install", "/debs/new.deb")

        assert pids == _pids()
        go.touch()
        told, _ = cell.communicate(timeout=DEADLINE)
    assert (b"42\n", 0) == (told, cell.returncode)


@check
def so_does_a_way_back_an_install_again_and_an_upgrade_that_fails() -> None:
    pids = _up()

    _dpkg("--install", "/debs/old.deb")
    _dpkg("--install", "/debs/old.deb")
    _dpkg("--install", "/debs/broken.deb", expect=1)

    assert "+next" not in _version()
    assert "ok installed" in run("dpkg-query", "--show", "--showformat=${Status}", "kernel-supervisor")
    assert pids == _pids()
    _assert_they_know_it()


@check
def an_upgrade_with_a_bad_file_costs_no_kernel_and_is_no_failure_of_the_package() -> None:
    pids = _up()
    write(TWO + "nonsense = 1\n")

    _dpkg("--install", "/debs/new.deb")

    assert all(map(is_there, pids.values()))
    write(TWO)
    SUPERVISOR.systemctl("reset-failed", expect=None)
    SUPERVISOR.systemctl("start")
    assert pids == _pids()
    _assert_they_know_it()


@check
def an_upgrade_does_not_start_what_was_stopped_and_not_enabled() -> None:
    _up()
    for service in (SUPERVISOR, TEAM):
        service.systemctl("disable", "--now")

    _dpkg("--install", "/debs/old.deb")

    assert ["inactive"] * 2 == [service.show("ActiveState") for service in (SUPERVISOR, TEAM)]


@check
def a_removal_stops_the_kernels_and_keeps_what_they_and_people_wrote() -> None:
    pids = _up()
    SUPERVISOR.ask("exec", "analysis", "open('result', 'w').write('mine')")

    _dpkg("--remove", "kernel-supervisor")

    assert not any(map(is_there, pids.values()))
    stops = SUPERVISOR.journal("KERNEL_EVENT=kernel.stopped", "KERNEL=analysis")
    assert stops, "a daemon ended it, in order"
    assert not Path(PROGRAM).exists()
    assert "not-found" == SUPERVISOR.show("LoadState")
    assert [True] * 3 == [path.exists() for path in (STATE, SETTINGS / "kernels.toml", HOME / "result")]


@check
def an_install_after_a_removal_goes_on_where_it_was() -> None:
    pids = _up()

    assert {"analysis", "robot", "theirs"} == pids.keys()
    assert SUPERVISOR.kernels()["analysis"]["generation"] > 1


@check
def what_a_stop_had_left_is_ended_by_the_removal_too() -> None:
    pids = _up()
    for service in (SUPERVISOR, TEAM):
        service.drop_in("[Service]\nRestartSec=60\n")
        os.kill(service.pid, 9)
        until("it waits", lambda service=service: service.show("SubState") == "auto-restart")
        service.systemctl("stop")
    assert all(map(is_there, pids.values()))

    _dpkg("--remove", "kernel-supervisor")

    for service in (SUPERVISOR, TEAM):
        service.drop_in("")
    assert not any(map(is_there, pids.values()))


@check
def a_purge_removes_its_records_and_neither_configurations_nor_files_of_user_code() -> None:
    _up()
    run(PROGRAM, "systemd", "install", "--run-as", ACCOUNT)
    assert Path(f"/etc/systemd/system/{UNIT}.d/install.conf").exists()

    _dpkg("--purge", "kernel-supervisor")

    left = [*Path("/var/lib").glob("kernel-supervisor*"), *Path("/run").glob("kernel-supervisor*")]
    assert [] == [*left, *Path("/etc/systemd").rglob("*kernel-supervisor*")]
    assert "mine" == (HOME / "result").read_text()
    assert (SETTINGS / "kernels.toml").exists()
    assert run("getent", "passwd", ACCOUNT)
    run("dpkg-query", "--show", "kernel-supervisor", expect=1)


@check
def kernels_of_an_installation_by_pip_go_on_under_the_package() -> None:
    by_pip = "/opt/kernel-supervisor/bin/kernel-supervisor"
    write(TWO)
    run(by_pip, "systemd", "install")
    run("systemctl", "daemon-reload")
    SUPERVISOR.systemctl("start")
    pids = until("they run", lambda: _running(by_pip))

    told = _dpkg("--install", "/debs/old.deb")
    assert f"/etc/systemd/system/{UNIT} hides the unit of this package" in told
    Path(f"/etc/systemd/system/{UNIT}").unlink()
    run("systemctl", "daemon-reload")
    SUPERVISOR.systemctl("restart")

    assert pids == SUPERVISOR.pids()
    assert b"/usr/lib/kernel-supervisor/" in Path(f"/proc/{SUPERVISOR.pid}/cmdline").read_bytes()


def _running(program: str) -> dict[str, int] | None:
    views = json.loads(run(program, "status", "--json"))["kernels"]
    return (
        {view["name"]: view["pid"] for view in views} if all(v["phase"] == "running" for v in views) else None
    )
