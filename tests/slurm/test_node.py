"""The script of a kernel's job under a real Slurm: each way to end, and what it knows of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from supervisor.machines import node
from tests.machines.nodes import KEY, direct_client, value_of
from tests.slurm.cluster import NODES, Cluster, limits_memory
from tests.slurm.jobs import Submitted
from tests.waiting import DEADLINE, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def limited(cluster: Cluster) -> Iterator[Submitted]:
    """One that meets its time limit while the other tests run: a minute, and up to half a one more."""
    job = Submitted(cluster, "limited", "--time=1", "--nodelist=n2")
    yield job
    job.cancel()


def test_it_runs_on_the_node_that_slurm_chose(cluster: Cluster) -> None:
    for name in NODES:
        job = Submitted(cluster, f"on-{name}", f"--nodelist={name}")
        with direct_client(job.target()) as asking:
            assert f"{name} {job.id}\n" == value_of(
                asking, "import os; print(os.environ['SLURMD_NODENAME'], os.environ['SLURM_JOB_ID'])"
            )
        assert (name, job.id) == (job.place()["node"], job.place()["job"])
        job.cancel()
        assert ("CANCELLED", -15, "CANCELLED") == job.ended()


def test_the_key_is_nowhere_that_slurm_shows(cluster: Cluster) -> None:
    job = Submitted(cluster, "secret")
    job.place()
    asked = [
        ("scontrol", "show", "job", job.id),
        ("squeue", "--json"),
        ("scontrol", "write", "batch_script", job.id, "-"),
    ]

    assert not any(KEY in cluster.run(*words) for words in asked)
    kept = [
        file
        for name in ("state", "spool")
        for file in (cluster.directory / name).rglob("*")
        if file.is_file()
    ]
    assert [] == [file for file in kept if KEY.encode() in file.read_bytes()]
    job.cancel()


@pytest.mark.parametrize(
    ("code", "state", "returncode"),
    [
        ("os._exit(7)", "FAILED", 7),
        ("os.kill(os.getpid(), 11)", "FAILED", -11),
        ("os._exit(0)", "COMPLETED", 0),
    ],
)
def test_an_end_of_its_own(cluster: Cluster, code: str, state: str, returncode: int) -> None:
    job = Submitted(cluster, f"own{returncode}")
    with direct_client(job.target()) as asking:
        asking.execute(f"import os; {code}")

        assert (state, returncode, None) == job.ended()


def test_a_signal_to_the_script_reaches_the_kernel(cluster: Cluster) -> None:
    job = Submitted(cluster, "interrupted")
    with direct_client(job.target()) as asking:
        value_of(asking, "pass")
        asking.execute("import time\nprint('begun', flush=True)\ntime.sleep(60)")
        wait_for(lambda: "begun" in str(asking.get_iopub_msg(timeout=DEADLINE)["content"]))
        cluster.run("scancel", "--batch", "--signal=INT", job.id)

        assert "KeyboardInterrupt" == asking.get_shell_msg(timeout=DEADLINE)["content"]["ename"]
        assert "RUNNING" == job.state
    job.cancel()


@pytest.mark.skipif(not limits_memory(), reason="memory is limited by cgroup v1, as root")
def test_a_kernel_that_takes_more_memory_than_it_has(cluster: Cluster) -> None:
    job = Submitted(cluster, "hungry", "--mem=150")
    with direct_client(job.target()) as asking:
        asking.execute("taken = bytearray(400 << 20)")

        assert ("OUT_OF_MEMORY", -9, None) == job.ended()
        assert 1 == (job.file("end.json") or {})["oom"]


def test_a_kernel_that_makes_way_for_another(cluster: Cluster) -> None:
    job = Submitted(cluster, "low", "--partition=low", "--cpus-per-task=4", "--nodelist=n1")
    job.place()
    other = Submitted(cluster, "high", "--partition=high", "--cpus-per-task=4", "--nodelist=n1")

    assert ("PREEMPTED", -15, "PREEMPTED") == job.ended()
    other.place()
    other.cancel()


def test_a_node_that_is_given_up(cluster: Cluster) -> None:
    job = Submitted(cluster, "down", "--nodelist=n1")
    job.place()
    cluster.run("scontrol", "update", "nodename=n1", "state=down", "reason=test")
    try:
        assert ("NODE_FAIL", -15, "NODE_FAIL") == job.ended()
    finally:
        wait_for(lambda: cluster.run("sinfo", "-h", "-n", "n1", "-o", "%T").split()[0] == "idle", "n1 back")


def test_a_node_whose_daemon_is_gone_ends_no_kernel_until_it_is_back(cluster: Cluster) -> None:
    job = Submitted(cluster, "orphan", "--nodelist=n1")
    with direct_client(job.target()) as asking:
        value_of(asking, "kept = 42")
        cluster.kill("n1")
        job.cancel()
        wait_for(lambda: job.state == "COMPLETING")

        assert "42\n" == value_of(asking, "print(kept)")
        assert job.file("end.json") is None
        cluster.start("n1")
        assert ("CANCELLED", -15, "CANCELLED") == job.ended(120)


def test_a_controller_that_is_gone_ends_nothing(cluster: Cluster) -> None:
    job = Submitted(cluster, "alone")
    with direct_client(job.target()) as asking:
        cluster.kill("slurmctld")
        try:
            asking.execute("import os; os._exit(7)")
            end = wait_for(lambda: job.file("end.json"), "its end")
            assert 7 == end["returncode"]
        finally:
            cluster.start("slurmctld")
        # A controller that was killed forgets what it has not saved yet: then the end file alone knows.
        wait_for(lambda: job.state in {"FAILED", ""}, lambda: job.state)


def test_a_second_job_of_the_same_run_starts_no_kernel(cluster: Cluster) -> None:
    job = Submitted(cluster, "twice")
    place = job.place()
    again = cluster.run("sbatch", "--parsable", "--output=again", str(job.directory / "job.sh")).strip()
    words = ("squeue", "-h", "-t", "all", "-j", again, "-o", "%T")

    wait_for(lambda: cluster.run(*words).strip() == "FAILED", "the second")
    assert f"{node.NOT_STARTED}:0" in cluster.run("scontrol", "show", "job", again)
    assert place == job.place()
    job.cancel()


def test_a_time_limit(limited: Submitted) -> None:
    limited.place()

    assert ("TIMEOUT", -15, "TIMEOUT") == limited.ended(180)
