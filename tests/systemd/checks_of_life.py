"""The daemon goes and the kernels stay; a kernel dies and the service goes on."""

from __future__ import annotations

import os
import time
from pathlib import Path

from service import BAD, SUPERVISOR, Service, Skipped, check, is_there, until, write

# The daemon goes, the kernels stay


class Remembered:
    """Kernels with a variable in them, before something happens to the daemon."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.pids = service.settle()
        self.token = str(time.monotonic_ns())
        self.files = self._connection_files()
        for name in self.pids:
            service.ask("exec", name, f"remembered = {self.token}")

    def check_is_kept(self) -> None:
        """Look whether processes, memory and addresses are as before."""
        assert self.pids == self.service.pids()
        assert self.files == self._connection_files()
        for name in self.pids:
            assert self.token == self.service.ask("exec", name, "print(remembered)").strip()

    def _connection_files(self) -> dict[str, bytes]:
        return {name: Path(self.service.ask("connection", name).strip()).read_bytes() for name in self.pids}


@check
def a_restart_keeps_pids_variables_and_ports() -> None:
    before, daemon = Remembered(SUPERVISOR), SUPERVISOR.pid

    SUPERVISOR.systemctl("restart")

    assert daemon != SUPERVISOR.pid
    before.check_is_kept()
    told = SUPERVISOR.journal("KERNEL_EVENT=kernel.adopted", "KERNEL=analysis")
    assert str(before.pids["analysis"]) == told[-1]["KERNEL_PID"]


@check
def ten_restarts_in_a_row_keep_them_too() -> None:
    before = Remembered(SUPERVISOR)

    for _ in range(10):
        SUPERVISOR.systemctl("restart")

    before.check_is_kept()


@check
def a_killed_daemon_is_back_and_has_its_kernels() -> None:
    before = Remembered(SUPERVISOR)

    SUPERVISOR.crash()

    before.check_is_kept()


@check
def a_daemon_that_hangs_is_ended_by_the_watchdog_and_tells_where_it_hung() -> None:
    SUPERVISOR.drop_in("[Service]\nWatchdogSec=3\n")
    SUPERVISOR.systemctl("restart")
    try:
        before, daemon = Remembered(SUPERVISOR), SUPERVISOR.pid

        os.kill(daemon, 19)  # SIGSTOP

        SUPERVISOR.wait_another_daemon(daemon)
        before.check_is_kept()
        told = [str(entry["MESSAGE"]) for entry in SUPERVISOR.journal(f"_PID={daemon}")]
        assert any("Fatal Python error: Aborted" in line for line in told), told
    finally:
        SUPERVISOR.drop_in("")


@check
def a_crash_with_a_bad_file_goes_on_with_what_was_in_force() -> None:
    before = Remembered(SUPERVISOR)
    write(BAD)

    SUPERVISOR.crash()

    before.check_is_kept()


@check
def a_detached_service_is_down_and_its_kernels_are_taken_up_by_the_next_start() -> None:
    before = Remembered(SUPERVISOR)

    SUPERVISOR.ask("detach")

    until("the service is down", lambda: "inactive" == SUPERVISOR.show("ActiveState"))
    assert all(map(is_there, before.pids.values()))
    SUPERVISOR.systemctl("start")
    before.check_is_kept()


# A kernel dies, the service goes on


@check
def a_killed_kernel_is_revived_and_the_service_goes_on() -> None:
    pids, daemon = SUPERVISOR.settle(), SUPERVISOR.pid
    restarts = SUPERVISOR.show("NRestarts")

    os.kill(pids["robot"], 9)

    until("another robot", lambda: SUPERVISOR.pids()["robot"] != pids["robot"])
    assert pids["analysis"] == SUPERVISOR.pids()["analysis"]
    assert (daemon, restarts) == (SUPERVISOR.pid, SUPERVISOR.show("NRestarts"))


@check
def the_journal_is_filtered_by_kernel_and_by_event() -> None:
    pids = SUPERVISOR.settle()
    os.kill(pids["analysis"], 9)
    until("another analysis", lambda: SUPERVISOR.pids()["analysis"] != pids["analysis"])

    of_kernel = SUPERVISOR.journal("KERNEL=analysis")
    deaths = SUPERVISOR.journal("KERNEL_EVENT=kernel.died", "KERNEL=analysis")

    assert {"kernel.starting", "kernel.ready", "kernel.died"} <= {line["KERNEL_EVENT"] for line in of_kernel}
    assert {"analysis"} == {line["KERNEL"] for line in of_kernel}
    assert ("SIGKILL", "killed") == (deaths[-1]["KERNEL_SIGNAL"], deaths[-1]["KERNEL_CAUSE"])
    assert str(pids["analysis"]) == deaths[-1]["KERNEL_PID"]
    assert "kernel-supervisor.service" == deaths[-1]["_SYSTEMD_UNIT"]


@check
def a_kernel_that_runs_out_of_memory_is_told_as_such_and_the_service_goes_on() -> None:
    assert "continue" == SUPERVISOR.show("OOMPolicy")
    group = Path("/sys/fs/cgroup") / SUPERVISOR.show("ControlGroup").lstrip("/")
    if not (group / "memory.max").exists():
        raise Skipped("no memory controller in this container: it needs a host with cgroups of version 2")
    pids, daemon = SUPERVISOR.settle(), SUPERVISOR.pid
    SUPERVISOR.systemctl("set-property", "--runtime", "MemoryMax=600M", "MemorySwapMax=0")
    try:
        SUPERVISOR.ask("exec", "robot", "x = bytearray(2_000_000_000)", expect=None)

        until("another robot", lambda: SUPERVISOR.pids()["robot"] != pids["robot"])
        assert daemon == SUPERVISOR.pid
        assert "oom" == SUPERVISOR.journal("KERNEL_EVENT=kernel.died", "KERNEL=robot")[-1]["KERNEL_CAUSE"]
    finally:
        SUPERVISOR.systemctl("set-property", "--runtime", "MemoryMax=infinity")
