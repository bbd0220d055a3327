"""What became of a run, as the next one tells its clients, and what it has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from supervisor.core.model import AS_EVER, Cause, Exit, Phase, ProcessId, Reason, Running, Step, Stopping
from supervisor.kernel.aftermath import Aftermath, executing_of, exit_of, left_of
from supervisor.records.record import Record, RecordedDeath
from supervisor.settings.config import KernelConfig
from supervisor.warm.inside.pending import Pending

CONFIG = KernelConfig(name="a", kernelspec="python3")
KILLED = Exit(Cause.KILLED, signal="SIGKILL")
P1 = ProcessId(41, 1, "boot")
HEADER = b'{"msg_id": "m", "msg_type": "execute_request"}'


def stopping(reason: Reason) -> Phase:
    return Stopping(CONFIG, P1, Step.ASK, 0.0, 1.0, reason, 0.0)


@pytest.mark.parametrize(
    ("ended", "how"),
    [
        (KILLED, "killed by SIGKILL after 1 h 1 min"),
        (Exit(Cause.OOM, signal="SIGKILL"), "killed by SIGKILL (out of memory) after 1 h 1 min"),
        (Exit(Cause.EXITED, code=7), "exited with code 7 after 1 h 1 min"),
        (Exit(Cause.UNKNOWN), "ended after 1 h 1 min"),
    ],
)
def test_the_next_run_tells_how_the_one_before_ended(ended: Exit, how: str) -> None:
    aftermath = Aftermath()
    assert aftermath.told(CONFIG, 1) is None

    aftermath.end(ended, 5.0, 3661.0)

    then = "started again as run 2; its variables are lost"
    assert {"at": 5.0, "how": how, "then": then} == aftermath.told(CONFIG, 2)


@pytest.mark.parametrize(
    ("phases", "how"),
    [
        ([stopping(Reason.EDITED)], "restarted with edited settings after 2 s"),
        ([stopping(Reason.ORDERED)], "stopped by order after 2 s"),
        ([stopping(Reason.UNRESPONSIVE)], "killed by SIGKILL after 2 s"),
        ([stopping(Reason.ORDERED), Running(CONFIG, P1, 0.0, begun=AS_EVER)], "killed by SIGKILL after 2 s"),
    ],
)
def test_who_was_stopped_did_not_die(phases: list[Phase], how: str) -> None:
    aftermath = Aftermath()
    for phase in phases:
        aftermath.note(phase)

    aftermath.end(KILLED, 5.0, 2.0)

    told = aftermath.told(CONFIG, 0)
    assert told is not None
    assert (how, "it is not started again") == (told["how"], told["then"])


def test_start_up_code_that_has_run_is_told() -> None:
    aftermath = Aftermath()
    aftermath.end(KILLED, 5.0, 2.0)

    told = aftermath.told(KernelConfig(name="a", kernelspec="python3", startup="x = 1"), 2)

    assert told is not None
    assert "started again as run 2; the start-up code has run" == told["then"]


@pytest.mark.parametrize(
    ("known", "how"),
    [
        ({"generation": 2}, "exited with code 7 after 2 s"),
        ({"generation": 9}, "ended after"),
        ({"generation": 2, "process": P1}, "ended after"),
    ],
)
def test_an_earlier_supervisor_tells_of_the_last_run_only(known: dict[str, Any], how: str) -> None:
    death = RecordedDeath(at_wall=5.0, generation=1, cause="exited", exit_code=7, uptime=2.0)
    aftermath = Aftermath()

    aftermath.recall(Record(name="a", deaths=(death,), **known))

    told = aftermath.told(CONFIG, 3)
    assert told is not None
    assert told["how"].startswith(how)


def test_of_a_first_run_there_is_nothing_to_tell() -> None:
    aftermath = Aftermath()

    aftermath.recall(Record(name="a", generation=1))

    assert aftermath.told(CONFIG, 1) is None


def test_why_a_start_failed_is_its_cause_and_its_last_words(tmp_path: Path) -> None:
    file = tmp_path / "pending"
    Pending(str(file), 1).fail("Traceback\n  line 1\nValueError: x\n")
    ended = Exit(Cause.EXITED, code=70)

    failed = left_of(file, ended, ready=False, executing=True)

    assert (Cause.STARTUP, "ValueError: x", 70) == (failed.cause, failed.detail, failed.code)
    assert ("Traceback", "  line 1", "ValueError: x") == failed.output_tail
    assert ended == left_of(file, ended, ready=True, executing=True)


def test_what_was_executed_is_told_where_that_is_wished(tmp_path: Path) -> None:
    file = tmp_path / "pending"
    pending = Pending(str(file), 1)
    pending.take("m", [b"c"], HEADER, b"while True: pass")
    assert executing_of(file) is None

    pending.start("m", 3)

    cell = executing_of(file)
    assert cell is not None
    assert (3, "while True: pass") == (cell.count, cell.code)
    assert cell == left_of(file, KILLED, ready=True, executing=True).executing
    assert left_of(file, KILLED, ready=True, executing=False).executing is None


def test_where_nothing_is_left_it_ended_as_it_ended(tmp_path: Path) -> None:
    assert KILLED == left_of(tmp_path / "none", KILLED, ready=False, executing=True)
    with pytest.raises(FileNotFoundError):
        executing_of(tmp_path / "none")


def test_a_cause_of_a_newer_version_is_unknown() -> None:
    assert Exit(Cause.UNKNOWN) == exit_of(RecordedDeath(at_wall=0.0, generation=1, cause="melted"))
