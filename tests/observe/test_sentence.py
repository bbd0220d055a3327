"""The wording of events."""

from typing import Any

import pytest

from supervisor.core.telling import LEVELS
from supervisor.observe.sentence import _WORDS, sentence

RUN: dict[str, Any] = {"kernel": "analysis", "generation": 4, "pid": 4242}
KILLED = {"signal": "SIGKILL", "cause": "killed"}
MISSING = {"pid": None, "cause": "not-found", "uptime": 0.0, "detail": "a file is missing"}
NODE = {"pid": None, "cause": "node-failed", "uptime": 12.3, "detail": "job 7 on n1: NODE_FAIL"}
READY = {"took": 0.412, "connect": "jupyter console --existing a"}
REJECTED = {"file": "/k.toml", "mistakes": ["a", "b"], "in_force": "the configuration before it"}
A = {"kernel": "analysis"}


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        (
            "kernel.died",
            RUN | KILLED | {"uptime": 10920.5},
            "analysis died: killed by SIGKILL after 3 h 2 min (run 4, pid 4242)",
        ),
        (
            "kernel.died",
            RUN | {"signal": "SIGSEGV", "cause": "crashed", "uptime": 12.3},
            "analysis died: crashed with SIGSEGV after 12 s (run 4, pid 4242)",
        ),
        ("kernel.died", RUN | KILLED | {"cause": "oom"}, "analysis died: out of memory (run 4, pid 4242)"),
        (
            "kernel.died",
            RUN | {"exit_code": 0, "cause": "exited", "uptime": 0.5},
            "analysis died: exited with code 0 after 0.5 s (run 4, pid 4242)",
        ),
        ("kernel.died", RUN | MISSING, "analysis could not be launched (run 4): a file is missing"),
        (
            "kernel.died",
            RUN | NODE,
            "analysis died: its node failed after 12 s (run 4): job 7 on n1: NODE_FAIL",
        ),
        (
            "kernel.died",
            A | {"cause": "unknown", "while_unsupervised": True},
            "analysis died while no supervisor was there: nobody knows how",
        ),
        (
            "kernel.ready",
            RUN | READY,
            "analysis is ready after 0.41 s (run 4, pid 4242); connect with: jupyter console --existing a",
        ),
        ("kernel.restarting", A | {"attempt": 1, "delay": 0.0}, "analysis restarts at once, attempt 1"),
        ("kernel.restarting", A | {"attempt": 2, "delay": 1.5}, "analysis restarts in 1.5 s, attempt 2"),
        (
            "kernel.failed",
            A | {"reason": "6 deaths"},
            "analysis failed and is left alone: 6 deaths; kernel-supervisor reset analysis tries again",
        ),
        (
            "kernel.unresponsive",
            A | {"check": "heartbeat", "misses": 3},
            "analysis does not answer its heartbeat, 3 missed in a row",
        ),
        ("kernel.signalled", A | {"signum": 10}, "analysis was sent SIGUSR1"),
        (
            "daemon.stopping",
            {"pid": 1, "kernels": ["a", "b"]},
            "supervisor is stopping (pid 1); waits for a, b",
        ),
        (
            "config.rejected",
            REJECTED,
            "configuration rejected: a; b; in force is the configuration before it",
        ),
        ("kernel.yawned", {"kernel": "a", "pid": 3}, "a: kernel.yawned (pid 3)"),
        ("stream.gap", {"dropped": 7}, "7 events are missing here, because they were read too slowly"),
        (
            "stream.gap",
            {"reason": "nothing was read for 10 s"},
            "some events are missing here, because they were read too slowly",
        ),
    ],
)
def test_an_event_reads_as_a_sentence(name: str, fields: dict[str, object], expected: str) -> None:
    assert expected == sentence({"event": name, **fields})


def test_every_event_of_the_machine_has_words() -> None:
    assert set() == set(LEVELS) - set(_WORDS)


@pytest.mark.parametrize("name", [*_WORDS, "", "new.event"])
def test_an_event_without_its_fields_or_with_wrong_ones_is_told_all_the_same(name: str) -> None:
    fields = "kernel generation pid uptime took delay signum kernels reason cause mistakes"
    odd: dict[str, object] = {field: [object()] for field in fields.split()}

    assert sentence({"event": name}) or name == ""
    assert 1 == len(sentence({"event": name, **odd, "reason": "two\nlines"}).splitlines())


def test_a_sentence_obeys_nothing_that_a_kernel_wrote() -> None:
    assert (
        "a failed and is left alone: \\x1b[2J\\r\\u2028; kernel-supervisor reset a tries again"
        == sentence({"event": "kernel.failed", "kernel": "a", "reason": "\x1b[2J\r\u2028"})
    )
