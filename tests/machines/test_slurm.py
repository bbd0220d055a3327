"""Slurm's commands, as small programs of this test stand in for them: what is asked, what is understood."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from supervisor.core.model import JobId
from supervisor.machines import slurm
from supervisor.machines.slurm import Slurm, SlurmError, mistake, options, rows, submit
from supervisor.settings.config import SlurmConfig

JOB = JobId("ks-a", "ks-a+1+x")
LINE = "12|1700000000|PENDING|Resources|1700000060|N/A||ks-a|ks-a+1+x\n"


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the only commands there are."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(slurm, "INTERVAL", 0.05)
    return tmp_path


def command(directory: Path, name: str, script: str) -> None:
    """A program that notes that it was called, and with what."""
    path = directory / name
    path.write_text(f'#!/bin/sh\necho "$0 $*" >> {directory}/called\n{script}\n')
    path.chmod(0o755)


def called(directory: Path) -> list[str]:
    return (directory / "called").read_text().splitlines()


def test_what_a_kernel_asks_for_is_said_in_the_words_of_sbatch() -> None:
    asked = SlurmConfig(partition="gpu", memory="60G", cpus=8, gpus="a100:2", extra=("--reservation=lab",))

    assert [
        "--partition=gpu",
        f"--mem={60 << 20}K",
        "--cpus-per-task=8",
        "--gpus=a100:2",
        "--reservation=lab",
    ] == options(asked)
    assert ["--mem=1K"] == options(SlurmConfig(memory="1"))


def test_a_job_is_found_by_its_mark_whatever_others_have_for_a_comment() -> None:
    found = rows("not a job\n13|N/A|RUNNING|None|N/A|N/A|n1|x|a|b|c\n" + LINE)

    row = found["ks-a+1+x"]
    assert ("12", "PENDING", "Resources", False) == (row.number, row.state, row.reason, row.has_ended)
    assert "2023-11-14T22:14:20.000Z" == row.estimate
    assert {"a|b|c", "ks-a+1+x"} == set(found)


def test_a_job_that_completes_has_not_ended() -> None:
    found = rows(LINE.replace("PENDING", "COMPLETING"))

    assert not found["ks-a+1+x"].has_ended
    assert rows(LINE.replace("PENDING", "NODE_FAIL"))["ks-a+1+x"].has_ended


def test_a_job_is_handed_in_once_by_its_name_and_its_mark(commands: Path) -> None:
    command(commands, "sbatch", f"/bin/cat > {commands}/script; echo '12;mine'")

    env = {"PATH": str(commands)}
    job = submit(JOB, SlurmConfig(cpus=1), "#!/bin/sh\ntrue\n", "/shared/job.out", env)

    assert JobId("ks-a", "ks-a+1+x", "12", "mine") == job
    assert "#!/bin/sh\ntrue\n" == (commands / "script").read_text()
    for said in ("--dependency=singleton", "--no-requeue", "--job-name=ks-a", "--comment=ks-a+1+x"):
        assert f" {said} " in called(commands)[0]


@pytest.mark.parametrize(
    ("told", "is_passing"),
    [
        ("sbatch: error: invalid partition specified: nowhere", False),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", False),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller", True),
        ("", True),
    ],
)
def test_a_mistake_is_told_from_what_passes(commands: Path, told: str, is_passing: bool) -> None:
    command(commands, "sbatch", f"echo '{told}' >&2; exit 1")

    with pytest.raises(SlurmError) as caught:
        submit(JOB, SlurmConfig(), "", "", {"PATH": str(commands)})

    assert is_passing is caught.value.is_passing
    assert ("" if is_passing else str(caught.value)) == mistake(SlurmConfig())
    assert "\n" not in str(caught.value)


def test_without_its_commands_nothing_can_be_done(commands: Path) -> None:
    assert "sbatch is not on the PATH: install Slurm's commands" == mistake(SlurmConfig())
    assert "via: ssh is not on the PATH: install it" == mistake(SlurmConfig(via="ssh"))


def test_a_command_that_hangs_is_given_up(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "PATIENCE", 0.1)
    command(commands, "sbatch", "exec /bin/sleep 60")

    with pytest.raises(SlurmError, match="timed out") as caught:
        slurm.run(["sbatch"])

    assert caught.value.is_passing


async def test_one_look_is_for_all_kernels(commands: Path) -> None:
    command(commands, "squeue", f"printf '{LINE}'")
    cluster = Slurm()

    looks = await asyncio.gather(*(cluster.look() for _ in range(1000)))

    assert {"ks-a+1+x"} == set(looks[0] or {})
    assert all(look is looks[0] for look in looks)
    assert 1 == len(called(commands))
    await cluster.look()
    assert 2 == len(called(commands))


async def test_a_controller_that_does_not_answer_tells_nothing(commands: Path) -> None:
    command(commands, "squeue", "exit 1")

    assert await Slurm().look() is None


async def test_who_stops_waiting_for_a_look_takes_it_from_nobody(commands: Path) -> None:
    command(commands, "squeue", f"printf '{LINE}'")
    cluster = Slurm()
    first, second = (asyncio.create_task(cluster.look()) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()

    assert {"ks-a+1+x"} == set(await second or {})
