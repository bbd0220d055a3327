"""What the job of a kernel does on its machine; here on this one."""

from __future__ import annotations

import ast
import os
import signal
import stat
from pathlib import Path

import pytest

from supervisor.machines import node
from tests.machines.nodes import IPYKERNEL, KEY, Job, direct_client, running, value_of
from tests.waiting import DEADLINE, wait_for

NO_KERNEL = ["/nowhere/python", "{connection_file}"]


def test_it_is_read_by_a_python_of_3_6() -> None:
    ast.parse(Path(node.__file__).read_text(), feature_version=(3, 6))


def test_a_kernel_is_found_at_its_place(tmp_path: Path) -> None:
    with running(tmp_path / "run", IPYKERNEL) as job, direct_client(job.target()) as asking:
        assert "42\n" == value_of(asking, "print(6 * 7)")

        place = job.place()
        assert str(place["pid"]) == value_of(asking, "import os; print(os.getpid(), end='')")
        assert ("m/a/1", job.process.pid) == (place["mark"], place["script"])
        assert Path("/proc/sys/kernel/random/boot_id").read_text().strip() == place["boot_id"]


def test_the_mark_and_the_environment_are_as_told(tmp_path: Path) -> None:
    told = {"env": {"COLOUR": "blue", "HOME": None}, "cwd": str(tmp_path)}
    names = ["COLOUR", "HOME", "KERNEL_SUPERVISOR_RUN"]
    code = f"import os; print([os.environ.get(name) for name in {names}], os.getcwd())"
    with running(tmp_path / "run", IPYKERNEL, **told) as job, direct_client(job.target()) as asking:
        assert f"['blue', None, 'm/a/1'] {tmp_path}\n" == value_of(asking, code)


def test_the_key_is_in_files_of_our_own_alone_and_in_no_process(tmp_path: Path) -> None:
    with running(tmp_path / "run") as job:
        place = job.place()
        files = [file for file in job.directory.iterdir() if file.name != "run.json"]
        shown = [
            Path(f"/proc/{place[who]}/{name}").read_bytes()
            for who in ("pid", "script")
            for name in ("cmdline", "environ")
        ]

        assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in files if file.name != "job.output"}
        assert ["connection.json"] == [file.name for file in files if KEY in file.read_text()]
        assert not any(KEY.encode() in what for what in shown)
        os.killpg(place["pid"], signal.SIGKILL)
        job.end()
        assert not (job.directory / "connection.json").exists()


@pytest.mark.parametrize(
    ("code", "returncode", "exit_code"),
    [("os._exit(7)", 7, 7), ("os.kill(os.getpid(), 11)", -11, 139), ("os.kill(os.getpid(), 9)", -9, 137)],
)
def test_the_end_tells_how(tmp_path: Path, code: str, returncode: int, exit_code: int) -> None:
    with running(tmp_path / "run", IPYKERNEL) as job, direct_client(job.target()) as asking:
        asking.execute(f"import os; {code}")

        end = job.end()
        assert (returncode, exit_code) == (end["returncode"], job.process.returncode)
        assert ("m/a/1", [], None) == (end["mark"], end["signals"], end["error"])


def test_signals_are_passed_on(tmp_path: Path) -> None:
    with running(tmp_path / "run", IPYKERNEL) as job, direct_client(job.target()) as asking:
        value_of(asking, "pass")
        asking.execute("import time\nprint('begun', flush=True)\ntime.sleep(60)")
        wait_for(lambda: "begun" in str(asking.get_iopub_msg(timeout=DEADLINE)["content"]))
        job.process.send_signal(signal.SIGINT)

        assert "KeyboardInterrupt" == asking.get_shell_msg(timeout=DEADLINE)["content"]["ename"]
        job.process.terminate()
        end = job.end()
        assert (-15, [2, 15]) == (end["returncode"], end["signals"])
        assert 128 + 15 == job.process.returncode


def test_what_is_left_of_its_group_ends_with_it(tmp_path: Path) -> None:
    code = "import os, subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    with running(tmp_path / "run", IPYKERNEL) as job, direct_client(job.target()) as asking:
        child = int(value_of(asking, code))
        os.kill(job.place()["pid"], signal.SIGKILL)
        job.end()

        wait_for(lambda: not Path(f"/proc/{child}").exists(), "the child's end")


def test_a_run_is_for_one_job(tmp_path: Path) -> None:
    with running(tmp_path / "run") as job:
        place = job.place()
        first, second = job.process, job.start()
        job.process = first

        assert node.NOT_STARTED == second.wait(DEADLINE)
        assert place == job.place()
        assert job.file("end.json") is None
        assert "no kernel is started here" in (job.directory / "job.output").read_text()


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"argv": NO_KERNEL}, "/nowhere/python"),
        ({"argv": None}, "TypeError"),
        ({"env": {"A\0B": "c"}}, "null"),
        ({"cwd": "/nowhere"}, "/nowhere"),
        ({"output": "/nowhere/output"}, "/nowhere"),
        ({"toward": "no.such.host.invalid"}, "gaierror"),
    ],
)
def test_why_no_kernel_was_started_is_told(tmp_path: Path, told: dict[str, object], reason: str) -> None:
    with running(tmp_path / "run", **told) as job:
        end = job.end()

        assert node.NOT_STARTED == job.process.returncode
        assert reason in end["error"]
        assert end["returncode"] is None
        assert job.file("place.json") is None


def test_a_run_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    job = Job(tmp_path / "run")
    (job.directory / "run.json").write_text("[" * 3000)
    job.start()

    assert "Error" in job.end()["error"]
    assert node.NOT_STARTED == job.process.returncode


def test_the_ports_are_held_while_it_lives(tmp_path: Path) -> None:
    with running(tmp_path / "run", ["sleep", "600"]) as job:
        for ip, port in job.target():
            with pytest.raises(OSError, match="Address already in use"), node.socket.socket() as other:
                other.bind((ip, port))


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("", None),
        ("*** JOB 41 ON n1 CANCELLED AT 2026-11-30T18:51:43 ***", None),
        ("*** JOB 42 ON n1 CANCELLED AT 2026-11-30T18:51:43 ***", "CANCELLED"),
        ("*** JOB 42 ON n1 CANCELLED AT 2026-11-30T18:51:43 DUE TO TIME LIMIT ***", "TIMEOUT"),
        ("*** JOB 42 ON n1 CANCELLED AT 2026-11-30T18:51:43 DUE TO PREEMPTION ***", "PREEMPTED"),
        ("*** JOB 42 ON n1 CANCELLED AT 2026-11-30T18:51:43 DUE TO NODE FAILURE, SEE", "NODE_FAIL"),
        ("*** JOB 42 ON n1 CANCELLED AT 2026-11-30T18:51:43 DUE TO SOMETHING NEW ***", "CANCELLED"),
    ],
)
def test_why_slurm_has_ended_it_is_read_in_its_own_output(
    tmp_path: Path, said: str, state: str | None
) -> None:
    job = Job(tmp_path / "run", ["sleep", "600"])
    job.environment["SLURM_JOB_ID"] = "42"
    job.start()
    job.place()
    (job.directory / "job.output").write_text(f"{'x' * 10_000}\nslurmstepd-n1: error: {said}\n")
    job.process.terminate()

    assert ("42", state) == (job.end()["job"], job.end()["state"])


def test_without_a_cgroup_of_its_own_what_it_uses_is_not_told_and_it_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with running(tmp_path / "run", IPYKERNEL) as job, direct_client(job.target()) as asking:
        wait_for(lambda: "what it uses cannot be told" in (job.directory / "job.output").read_text())

        assert job.file("usage.json") is None
        assert "42\n" == value_of(asking, "print(6 * 7)")
