"""The unit edited, replaced and removed; its account; what an operator does to it."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from service import ACCOUNT, PROGRAM, SETTINGS, SUPERVISOR, Service, check, is_there, run, until, write

UNITS = Path("/etc/systemd/system")
ONE_KERNEL = '[kernels.analysis]\nkernelspec = "python3"\n'


def lab() -> Service:
    """An instance with an account of its own, up and with its kernel ready."""
    if run("id", "-u", "lab", expect=None).strip().isdigit() is False:
        run("useradd", "--system", "--create-home", "lab")
    write(ONE_KERNEL, "lab")
    run(PROGRAM, "systemd", "install", "--instance", "lab", "--run-as", "lab", "--replace")
    run("systemctl", "daemon-reload")
    service = Service("kernel-supervisor@lab", client=("--socket", "/run/kernel-supervisor-lab/control.sock"))
    service.systemctl("start")
    return service


# The unit


@check
def an_edited_unit_is_shown_and_replaced_only_when_told() -> None:
    unit = UNITS / "kernel-supervisor.service"
    ours = unit.read_text()
    unit.write_text(ours.replace("[Service]", "[Service]\nNice=5", 1))

    told = run(PROGRAM, "systemd", "install", expect=1)

    assert "-Nice=5" in told
    assert "--replace" in told
    assert "Nice=5" in unit.read_text()
    run(PROGRAM, "systemd", "install", "--replace")
    assert ours == unit.read_text()
    assert "Nice=5" in unit.with_name(f"{unit.name}.~1~").read_text()
    run("systemctl", "daemon-reload")


@check
def an_account_is_that_of_its_instance_and_of_no_other() -> None:
    service = lab()
    try:
        assert ("lab", ACCOUNT) == (service.show("User"), Service("kernel-supervisor@team").show("User"))
        (pid,) = service.pids().values()
        assert Path(f"/proc/{pid}").owner() == "lab"
        assert (0o700, "lab") == _mode_and_owner("/var/lib/kernel-supervisor-lab")
    finally:
        service.systemctl("stop")


@check
def another_account_than_before_tells_which_kernels_it_cannot_take_up_and_why() -> None:
    service = lab()
    (pid,) = service.pids().values()
    run(PROGRAM, "systemd", "install", "--instance", "lab", "--run-as", ACCOUNT, expect=1)
    told = run(PROGRAM, "systemd", "install", "--instance", "lab", "--run-as", ACCOUNT, "--replace")
    assert f"it has run as lab and would run as {ACCOUNT}, which cannot take up the kernels of lab" in told
    run("systemctl", "daemon-reload")
    service.systemctl("restart")
    try:
        assert f"analysis: pid {pid} belongs to user" in service.ask("status")
        assert is_there(pid)
        service = lab()
        service.systemctl("restart")
        assert {"analysis": pid} == service.pids()
    finally:
        service.systemctl("stop")
    assert not is_there(pid)


@check
def an_instance_is_uninstalled_when_it_is_down_and_purged_of_what_it_kept() -> None:
    service = lab()
    service.pids()
    service.systemctl("enable")
    uninstall = (PROGRAM, "systemd", "uninstall", "--instance", "lab", "--purge")

    assert "systemctl disable --now kernel-supervisor@lab" in run(*uninstall, expect=1)
    service.ask("detach")
    until("it is down", lambda: service.show("ActiveState") == "inactive")
    service.systemctl("disable")
    assert "kernels live on: analysis" in run(*uninstall, expect=1)
    service.systemctl("start")
    service.systemctl("stop")
    told = run(*uninstall)

    assert "/var/lib/kernel-supervisor-lab is removed" in told
    left = [*Path("/var/lib").glob("*-lab"), *Path("/run").glob("*-lab"), *UNITS.rglob("*@lab*")]
    assert [] == left
    assert Path("/var/lib/kernel-supervisor").is_dir()
    run(PROGRAM, "systemd", "install", "--instance", "team")


# The account


@check
def what_the_kernels_write_is_nobody_elses_to_read() -> None:
    SUPERVISOR.settle()

    assert 0o700 == Path(f"/home/{ACCOUNT}").stat().st_mode & 0o777
    assert "0o77" == SUPERVISOR.ask("exec", "robot", "import os; print(oct(os.umask(0o77)))").strip()


def _mode_and_owner(path: str) -> tuple[int, str]:
    return Path(path).stat().st_mode & 0o777, Path(path).owner()


@check
def check_judges_as_the_account_of_the_service() -> None:
    file = SETTINGS / "private.toml"
    file.write_text(ONE_KERNEL)
    file.chmod(0o600)

    assert 'kernelspec = "python3"' in run(PROGRAM, "check", str(file))
    told = run(PROGRAM, "check", "--run-as", ACCOUNT, str(file), expect=78)

    assert "ermission denied" in told, told
    file.unlink()


@check
def kernels_read_the_credentials_of_the_service_also_after_its_restart() -> None:
    Path("/etc/token").write_text("sesame")
    SUPERVISOR.drop_in("[Service]\nLoadCredential=token:/etc/token\n")
    try:
        SUPERVISOR.systemctl("restart")
        SUPERVISOR.settle()
        SUPERVISOR.ask("restart", "robot")
        read = "import os; print(open(os.environ['CREDENTIALS_DIRECTORY'] + '/token').read())"
        assert "sesame" == SUPERVISOR.ask("exec", "robot", read).strip()
        SUPERVISOR.systemctl("restart")
        SUPERVISOR.pids()
        assert "sesame" == SUPERVISOR.ask("exec", "robot", read).strip()
    finally:
        SUPERVISOR.drop_in("")


# What an operator does


@check
def the_command_to_connect_in_the_journal_is_one_that_works_for_its_reader() -> None:
    pids = SUPERVISOR.settle()
    os.kill(pids["robot"], 9)
    until("another robot", lambda: SUPERVISOR.pids()["robot"] != pids["robot"])

    ready = SUPERVISOR.journal("KERNEL_EVENT=kernel.ready", "KERNEL=robot")[-1]

    file = "/run/kernel-supervisor/jupyter/kernel-robot.json"
    assert ready["KERNEL_CONNECT"].startswith(f"sudo -u {ACCOUNT} "), ready
    assert ready["KERNEL_CONNECT"].endswith(f"jupyter console --existing {file}"), ready
    assert Path(file).is_file()


@check
def a_second_daemon_of_root_on_the_same_file_is_refused_with_the_reason() -> None:
    pids = SUPERVISOR.settle()

    told = run(PROGRAM, "run", str(SETTINGS / "kernels.toml"), expect=1)

    assert f"{SETTINGS}/kernels.toml: is run by another daemon (pid {SUPERVISOR.pid})" in told
    assert pids == SUPERVISOR.pids()


@check
def the_daemon_alone_is_signalled_as_the_page_says() -> None:
    pids = SUPERVISOR.settle()
    (SETTINGS / "kernels.toml").write_text(ONE_KERNEL)

    SUPERVISOR.systemctl("kill", "--kill-whom=main", "--signal=HUP")

    until("the file is read", lambda: [*SUPERVISOR.kernels()] == ["analysis"])
    assert pids["analysis"] == SUPERVISOR.pids()["analysis"]


@check
def what_cannot_be_executed_is_tried_more_slowly_and_heals_by_itself() -> None:
    pids, daemon, before = SUPERVISOR.settle(), SUPERVISOR.pid, int(SUPERVISOR.show("NRestarts"))
    away = Path(f"{PROGRAM}.away")
    shutil.move(PROGRAM, away)
    try:
        os.kill(daemon, 9)
        until("a failed attempt", lambda: SUPERVISOR.show("ExecMainStatus") == "203")
        begin = time.monotonic()
        until("the next one", lambda: int(SUPERVISOR.show("NRestarts")) > before + 1)
        assert time.monotonic() - begin > 5
    finally:
        shutil.move(away, PROGRAM)
    SUPERVISOR.wait_another_daemon(daemon)
    kept = {name: pid for name, pid in SUPERVISOR.pids().items() if re.fullmatch("analysis|robot", name)}
    assert pids == kept
