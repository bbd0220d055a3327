"""The summary of events: a table of kernels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.program import main
from supervisor.cli.summary import summarise, table

EVENTS: list[dict[str, Any]] = [
    {"event": "daemon.started"},
    {"event": "kernel.ready", "kernel": "a", "took": 0.5},
    {"event": "kernel.died", "kernel": "a", "cause": "oom", "signal": "SIGKILL", "uptime": 7200.0},
    {"event": "kernel.restarting", "kernel": "a"},
    {"event": "kernel.ready", "kernel": "a", "took": 1.5},
    {"event": "kernel.died", "kernel": "a", "cause": "exited", "exit_code": 3, "uptime": 5.0},
    {"event": "kernel.died", "kernel": "a", "cause": "exited", "exit_code": 3, "uptime": 5.0},
    {"event": "kernel.starting", "kernel": "b"},
]


def test_deaths_are_by_cause_and_runs_and_readiness_are_measured() -> None:
    found = summarise(EVENTS)

    assert ["a", "b"] == list(found)
    assert {"deaths": {"out of memory": 1, "exit 3": 2}, "restarts": 1, "longest_run": 7200.0,
            "mean_ready": 1.0} == found["a"].fields()  # fmt: skip
    lines = table(found, None, colours=False)
    assert ["NAME", "DEATHS", "BY"] == lines[0].split()[:3]
    assert ["a", "3", "exit", "3", "×2,", "out", "of", "memory", "×1", "1", "2", "h", "1", "s"] == lines[
        1
    ].split()
    assert ["b", "0", "-", "0", "-", "-"] == lines[2].split()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a daemon left that is not there any more."""
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "state"
    state.mkdir()
    config = tmp_path / "kernels.toml"
    config.write_text('[supervisor]\nstate_dir = "state"\n[kernels.a]\nkernelspec = "python3"\n')
    lines = [{"timestamp": f"2026-01-0{day}T00:00:00.000Z", **event} for day, event in enumerate(EVENTS, 1)]
    (state / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return config


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert 0 == main(["logs", *words])
    return [json.loads(line)["timestamp"][8:10] for line in capsys.readouterr().out.splitlines()]


def test_events_are_chosen_by_cause_and_until_a_moment(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--config", str(file), "--json")

    assert ["06", "07"] == shown(capsys, "--cause", "exited", *words)
    assert ["07"] == shown(capsys, "--cause", "exited", "-n", "1", *words)
    assert ["02", "03"] == shown(capsys, "--until", "2026-01-03T00:00:00Z", "-n", "2", *words)
    assert 0 == main(["logs", "--summary", "--config", str(file)])
    assert capsys.readouterr().out.startswith("NAME ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--cause", "omm"), "--cause: 'omm' is not a cause: did you mean 'oom'?"),
        (("--event", "kernel.die"), "--event: 'kernel.die' is not an event: did you mean 'kernel.died'?"),
        (("--event", "x"), "--event: 'x' is not an event: there are daemon.started, "),
        (("--until", "soon"), "--until: 'soon' is not a time"),
        (("--until", "1h", "-f"), "--until and --follow exclude each other"),
    ],
)
def test_what_is_asked_in_the_wrong_way(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 2 == main(["logs", *words])
    assert told in capsys.readouterr().err
