"""Kernels as jobs of a real Slurm: whatever ends one, its cause is told and it is back at its address."""

from __future__ import annotations

import logging
import os
import signal
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from supervisor.kernel.jobs import job_name
from tests.e2e.daemon import printed
from tests.machines.sshd import serving
from tests.slurm.cluster import Cluster, limits_memory
from tests.slurm.lab import Lab
from tests.waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

log = logging.getLogger(__name__)

# How often the daemon is killed.
ROUNDS = int(os.environ.get("SLURM_ROUNDS", "8"))
LONG = 120.0  # Slurm looks at limits of time twice a minute, and ends what is over them later


@pytest.fixture
def lab(tmp_path: Path, cluster: Cluster) -> Iterator[Lab]:
    made = Lab(tmp_path, cluster)
    try:
        yield made
    finally:
        made.clean_up()
    assert [] == made.doubles(), "two jobs of one kernel ran at the same time"


def started(lab: Lab, *tables: str) -> Lab:
    lab.write(*tables)
    lab.start("a")
    return lab


# The table of life


def exits(lab: Lab) -> None:
    lab.cluster.run("scancel", "--batch", "--signal=USR1", lab.jobs()[0][0])


def signals(signum: int) -> Callable[[Lab], None]:
    return lambda lab: os.kill(lab.place()["pid"], signum)


def cancelled(lab: Lab) -> None:
    lab.cluster.run("scancel", lab.jobs()[0][0])


def node_down(lab: Lab) -> None:
    node = lab.jobs()[0][2]
    lab.cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    lab.cluster.run("scontrol", "update", f"nodename={node}", "state=resume")


@pytest.mark.parametrize(
    ("end", "cause", "told"),
    [
        (signals(signal.SIGKILL), "killed", "SIGKILL"),
        (signals(signal.SIGSEGV), "crashed", "SIGSEGV"),
        (cancelled, "cancelled", "SIGTERM"),
        (node_down, "node-failed", "SIGTERM"),
    ],
    ids=["killed", "crashed", "cancelled", "node-failed"],
)
def test_what_ended_it_is_told_and_it_is_back_at_its_address(
    lab: Lab, end: Callable[[Lab], None], cause: str, told: str
) -> None:
    started(lab, lab.job("a", "--fragile"))
    address = lab.connection_file("a").read_bytes()

    end(lab)

    died = lab.wait_event("kernel.died")
    assert (cause, told) == (died["cause"], died.get("signal"))
    lab.wait_running("a", after=1)
    assert address == lab.connection_file("a").read_bytes()


def test_an_exit_is_told_with_its_code(lab: Lab) -> None:
    started(lab, lab.job("a", "--exit-after", "3", "--exit-code", "7"))

    died = lab.wait_event("kernel.died")

    assert ("exited", 7) == (died["cause"], died["exit_code"])


def test_the_limit_of_time_is_warned_of_and_told(lab: Lab) -> None:
    started(lab, lab.job("a", partition="short", time="1"))

    assert "at" in lab.wait_event("kernel.expiring")
    wait_for(lambda: lab.events("kernel.died"), lab.log_end, LONG)

    assert "time-limit" == lab.events("kernel.died")[0]["cause"]
    lab.wait_running("a", after=1)


def test_a_preempted_kernel_waits_for_its_next_place(lab: Lab) -> None:
    started(lab, lab.job("a", partition="low"))
    argv = ["sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--wrap", "sleep 600"]
    other = lab.cluster.run(*argv).strip()

    assert "preempted" == lab.wait_event("kernel.died")["cause"]
    wait_for(lambda: (lab.kernel("a")["job"] or {}).get("queue"), lab.log_end)
    lab.cluster.run("scancel", other)
    lab.wait_running("a", after=1)


@pytest.mark.skipif(not limits_memory(), reason="the memory of jobs cannot be limited here")
def test_a_kernel_that_uses_too_much_memory_is_told_as_such(lab: Lab) -> None:
    started(lab, lab.job("a", kernel="ipykernel", memory="200M"))
    with lab.client("a") as client:
        client.execute("x = bytearray(1 << 30)")

        assert "oom" == lab.wait_event("kernel.died")["cause"]
        lab.wait_running("a", after=1)
        assert "2" == printed(client, "print(1 + 1)"), "the client works on"


@pytest.mark.skipif(not limits_memory(), reason="jobs have no cgroup here")
def test_what_it_uses_is_told_by_its_node(lab: Lab) -> None:
    started(lab, lab.job("a", kernel="ipykernel", memory="400M"))
    assert "100" == lab.run("a", "kept = bytearray(100 << 20); print(len(kept) >> 20)")

    def used() -> dict[str, float]:
        found: dict[str, float] = lab.ask("GET", "/v1/kernels/a/usage").body["usage"] or {}
        return found if found.get("memory", 0) > 100 << 20 else {}

    told = wait_for(used, lab.log_end, LONG)
    assert 400 << 20 > told["memory"]
    assert told["cpu_seconds"] > 0.1
    assert told["threads"] > 1
    assert 0 == told["children"]
    assert " MB " in lab.command("status", "--usage").out
    lab.order("stop", "a")
    assert lab.ask("GET", "/v1/kernels/a/usage").body["usage"] is None


# The queue


def test_kernels_in_the_queue_hold_no_start_slot_and_can_be_stopped(lab: Lab) -> None:
    waiting = [f"w{number}" for number in range(5)]
    held = [lab.job(name, extra=["--begin=now+1hour"]) for name in waiting]
    lab.write(*held, lab.mini("here"), supervisor="max_concurrent_starts = 1")
    lab.start("here")

    wait_for(
        lambda: all("BeginTime" == (lab.kernel(name)["job"] or {})["queue"]["reason"] for name in waiting),
        lab.log_end,
    )
    assert "w0: in the queue: BeginTime, to begin in " in lab.command("status").out
    for name in waiting:
        lab.order("stop", name)
        lab.wait_phase(name, "stopped")
        assert [] == lab.jobs(name)


def test_what_no_cluster_takes_is_told_by_check_and_fails_at_once(lab: Lab) -> None:
    lab.write(lab.job("a", partition="nowhere"))

    assert "kernels.a.slurm: sbatch: " in lab.command("check").err
    lab.start()
    assert "invalid partition" in lab.wait_phase("a", "failed")["reason"]


def test_what_its_script_could_not_do_is_told(lab: Lab) -> None:
    lab.write(lab.job("a", setup=["echo no such module >&2", "false"], keys="max_restarts = 1"))
    lab.start()

    died = lab.wait_event("kernel.died")

    assert ["no such module"] == died["output_tail"]
    assert "its script ended before the kernel was started" in died["detail"]
    lab.wait_phase("a", "failed")


# Addresses


def test_a_client_works_on_when_its_kernel_changes_nodes(lab: Lab) -> None:
    started(lab, lab.job("a", kernel="ipykernel", memory="400M"))
    with lab.client("a") as client:
        node = printed(client, "import os; print(os.environ['SLURMD_NODENAME'])")
        with lab.without(node):
            lab.order("restart", "a")
            assert node != printed(client, "import os; print(os.environ['SLURMD_NODENAME'])")


def test_by_ssh_nobody_else_reaches_it_and_a_client_goes_from_node_to_node(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path / "ssh") as sshd:
        monkeypatch.setitem(lab.cluster.env, "PATH", sshd.path)
        started(lab, lab.job("a", kernel="ipykernel", memory="400M", via="ssh"))
        with lab.client("a") as client:
            code = "import os; print(os.environ['SLURMD_NODENAME'])"
            node = printed(client, code)
            place = lab.place()
            assert ("ipc", node) == (place["transport"], place["node"])
            assert 0o700 == stat.S_IMODE(Path(place["ip"]).parent.stat().st_mode)
            with lab.without(node):
                lab.order("restart", "a")
                assert node != printed(client, code)
            lab.kill()
            lab.start("a")
            assert node != printed(client, code)
        assert 0 == lab.stop()


def test_a_relay_that_is_killed_costs_no_kernel(lab: Lab) -> None:
    started(lab, lab.job("a", kernel="ipykernel", memory="400M"))
    with lab.client("a") as client:
        printed(client, "x = 1; print()")
        os.kill(int((lab.state_dir / "relay.lock").read_text()), signal.SIGKILL)
        assert "1" == printed(client, "print(x)")

    assert [] == lab.events("kernel.died")


def test_an_edit_of_memory_restarts_only_that_kernel(lab: Lab) -> None:
    started(lab, lab.job("a"), lab.job("b"))
    lab.wait_running("b")

    lab.write(lab.job("a", memory="300M"), lab.job("b"))

    lab.wait_running("a", after=1)
    assert 1 == lab.kernel("b")["generation"]


# What outlives what


def test_a_daemon_that_was_killed_takes_up_its_kernels_and_clients_notice_nothing(lab: Lab) -> None:
    started(lab, lab.job("a", kernel="ipykernel", memory="400M"))
    with lab.client("a") as client:
        printed(client, "x = 1; print()")
        wait_for(lambda: lab.record("a").get("ready"), "it is on record")
        lab.kill()
        assert "1" == printed(client, "print(x)")
        lab.start("a")
        assert "1" == printed(client, "print(x)")

    assert (1, []) == (lab.kernel("a")["generation"], lab.events("kernel.died"))


@pytest.mark.timeout(120 + 30 * ROUNDS)
def test_a_daemon_that_is_killed_at_any_moment_loses_no_kernel_and_starts_none_twice(lab: Lab) -> None:
    random, met = Random(17), Counter[str]()
    names = ("a", "late", "slow")  # late waits in the queue for a while, slow does so on its node
    lab.write(
        lab.job("a", keys="max_restarts = 0"),
        lab.job("late", keys="max_restarts = 0", extra=["--begin=now+4"]),
        lab.job("slow", "--start-delay", "2", keys="max_restarts = 0"),
    )
    for _ in range(ROUNDS):
        lab.begin()
        time.sleep(random.choice([0.3, 0.6, 1.0, 1.5, 2.5, 5.0, 8.0]))
        if random.random() < 0.6:
            lab.cluster.run("scancel", f"--name={job_name(lab.state_dir, random.choice(names))}")
            time.sleep(random.choice([0.0, 0.5, 3.0]))
        lab.kill()
        assert [] == lab.doubles()
        for name in names:
            assert 1 >= len(lab.jobs(name, "RUNNING", "COMPLETING"))
            met.update(f"{name} {state}" for _, state, _ in lab.jobs(name) or [("", "NONE", "")])
    log.info("killed %d times, and met with: %s", ROUNDS, met)

    lab.start()
    # One that may be on its way to the cluster is waited for (ABSENT_PATIENCE) before another is handed in.
    for name in names:
        wait_for(lambda: lab.kernel(name)["phase"] == "running", lab.log_end, LONG)  # noqa: B023

        assert 1 == len(lab.jobs(name, "RUNNING"))
        wait_for(lambda: 1 == len(lab.jobs(name)), lambda: f"one job is left, of {lab.jobs(name)}")  # noqa: B023
        assert lab.place(name)["job"] == lab.kernel(name)["job"]["number"]


def test_an_end_while_nobody_watched_has_its_cause(lab: Lab) -> None:
    started(lab, lab.job("a"))
    wait_for(lambda: lab.record("a").get("ready"), "it is on record")
    lab.kill()

    cancelled(lab)
    wait_for(lambda: not lab.jobs(), "its job has ended")
    lab.start()

    assert "cancelled" == lab.wait_event("kernel.died")["cause"]
    lab.wait_running("a", after=1)


def test_a_controller_that_is_away_makes_nothing_dead(lab: Lab) -> None:
    started(lab, lab.job("a"))
    lab.cluster.stop_controller()  # killed, it might forget the job
    asked = lab.events("kernel.ready")
    lab.order("interrupt", "a")
    lab.cluster.start("slurmctld")
    assert asked == lab.events("kernel.ready")
    lab.order("restart", "a")

    lab.wait_running("a", after=1)
    assert [] == lab.events("kernel.died")


def test_a_controller_that_forgot_a_job_costs_a_start(lab: Lab) -> None:
    lab.write(lab.job("a", extra=["--begin=now+5"]))
    lab.start()
    wait_for(lambda: (lab.kernel("a")["job"] or {}).get("number"), lab.log_end)
    lab.cluster.kill("slurmctld")
    lab.cluster.start("slurmctld")

    wait_for(lambda: lab.kernel("a")["phase"] == "running", lab.log_end, LONG)


def test_a_job_whose_node_is_silent_is_not_taken_for_ended(lab: Lab) -> None:
    started(lab, lab.job("a"))
    node, pid = lab.jobs()[0][2], lab.place()["pid"]
    lab.cluster.kill(node)
    try:
        lab.order("restart", "a", now=True, wait=False)
        wait_for(lambda: lab.jobs("a", "COMPLETING"), "it is being cancelled")
        os.kill(pid, 0)
        assert [] == lab.events("kernel.died")
    finally:
        lab.cluster.start(node)

    lab.wait_running("a", after=1)


def test_a_shutdown_leaves_neither_a_job_nor_the_relay(lab: Lab) -> None:
    started(lab, lab.job("a"))
    relay = lab.state_dir / "relay.sock"
    assert relay.exists()

    assert 0 == lab.stop()
    assert [] == lab.jobs()
    wait_for(lambda: not relay.exists(), "the relay has ended")


def test_a_daemon_that_detaches_leaves_both_to_the_next(lab: Lab) -> None:
    started(lab, lab.job("a"))
    with lab.client("a") as asking:
        assert "1" == printed(asking, "kept = 1; print(kept)").strip()
        relay = (lab.state_dir / "relay.lock").read_text()
        assert 0 == lab.command("detach").code
        wait_for(lambda: not lab.answers(), "it has gone")

        assert "1" == printed(asking, "print(kept)").strip()
        lab.start("a")
        assert relay == (lab.state_dir / "relay.lock").read_text()
        assert "1" == printed(asking, "print(kept)").strip()
