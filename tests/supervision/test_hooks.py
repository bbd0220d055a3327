"""Commands that are told of events: real ones, in a shell."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.settings.config import EVENTS, HookConfig
from supervisor.supervision import hooks
from supervisor.supervision.hooks import MOST_AT_ONCE, MOST_WAITING, Hooks, concerns
from tests.waiting import until

DIED = {
    "timestamp": "2026-01-02T03:04:05.678Z",
    "level": "warning",
    "event": "kernel.died",
    "kernel": "a",
    "generation": 3,
    "pid": 4242,
    "signal": "SIGKILL",
    "cause": "oom",
    "output_tail": ["last \udcff words"],
}


def hook(script: str, events: tuple[str, ...] = ("kernel.died",), **keys: Any) -> HookConfig:
    return HookConfig(events=events, command=("sh", "-c", script), **keys)


def written(name: str) -> str:
    return Path(name).read_text()


def touch(name: str) -> None:
    Path(name).touch()


def remove(name: str) -> None:
    Path(name).unlink()


@pytest.fixture
async def telling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hooks]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hooks, "LAST_PATIENCE", 0.0)
    made = Hooks()
    yield made
    await made.close()


async def test_a_command_gets_the_event_as_json_and_its_fields_in_the_environment(telling: Hooks) -> None:
    script = 'cat > event; env | grep "^KERNEL_SUPERVISOR_" | sort > fields; touch done'
    telling.configs = (hook(script),)

    telling(DIED)

    await until(Path("done").exists)
    assert DIED | {"output_tail": ["last \udcff words"]} == json.loads(written("event"))
    fields = dict(line.split("=", 1) for line in written("fields").splitlines())
    assert ("oom", "SIGKILL", "3") == tuple(
        fields[f"KERNEL_SUPERVISOR_{name}"] for name in ("CAUSE", "SIGNAL", "GENERATION")
    )
    assert fields["KERNEL_SUPERVISOR_SENTENCE"].startswith("a died: ")
    assert "KERNEL_SUPERVISOR_REASON" not in fields


async def test_nothing_about_the_daemon_alone_is_inherited(
    telling: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/of/the/daemon")
    telling.configs = (hook("env > told; touch done"),)

    telling(DIED)

    await until(Path("done").exists)
    assert "NOTIFY_SOCKET" not in written("told")


@pytest.mark.parametrize(
    ("events", "kernels", "event", "expected"),
    [
        (("kernel.died",), ("*",), {"event": "kernel.died", "kernel": "a"}, True),
        (("kernel.died",), ("*",), {"event": "kernel.ready", "kernel": "a"}, False),
        (("kernel.*",), ("train-*",), {"event": "kernel.ready", "kernel": "train-1"}, True),
        (("kernel.*",), ("train-*",), {"event": "kernel.ready", "kernel": "a"}, False),
        (("daemon.*",), ("a",), {"event": "daemon.stopped"}, True),
    ],
)
def test_whom_an_event_concerns(
    events: tuple[str, ...], kernels: tuple[str, ...], event: dict[str, str], expected: bool
) -> None:
    assert expected is concerns(hook("", events, kernels=kernels), event)


async def test_what_fails_is_told_once_until_it_works_again(
    telling: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    telling.configs = (hook("test -e well; e=$?; echo >> runs; exit $e", name="mail"),)

    async def run(times: int) -> None:
        telling(DIED)
        await until(lambda: Path("runs").exists() and len(written("runs").splitlines()) == times)
        await until(lambda: not telling.pending)

    await run(1)
    await run(2)
    assert 1 == caplog.text.count("hook mail: failed with exit code 1")
    touch("well")
    await run(3)
    remove("well")
    await run(4)
    assert 2 == caplog.text.count("hook mail: failed with exit code 1")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("/nowhere/at-all",), "at-all: cannot be run: [Errno 2]"),
        (("sh", "-c", "kill -9 $$"), "sh: was killed by SIGKILL"),
        (("sh", "-c", "trap '' TERM; sleep 600 & wait; wait"), "sh: took more than 0.1 s and was ended"),
    ],
)
async def test_what_goes_wrong_is_told_in_words(
    telling: Hooks,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.setattr(hooks, "KILL_PATIENCE", 0.1)
    telling.configs = (HookConfig(events=("kernel.died",), command=command, timeout=0.1),)

    telling(DIED)

    await until(lambda: not telling.pending)
    assert told in caplog.text


async def test_a_flood_is_bounded_and_counted_and_delays_nobody(
    telling: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo("gate")
    telling.configs = (hook("echo >> begun; cat gate; echo >> ended"),)
    flood = MOST_AT_ONCE + MOST_WAITING + 7

    for _ in range(flood):
        telling(DIED)

    await until(lambda: Path("begun").exists() and len(written("begun").splitlines()) == MOST_AT_ONCE)
    assert MOST_AT_ONCE + MOST_WAITING == telling.pending
    assert "more are lost" in caplog.text


async def test_what_runs_is_ended_with_the_daemon_with_all_that_it_started(telling: Hooks) -> None:
    telling.configs = (hook("sleep 600 & echo $! > pid; wait"),)
    telling(DIED)
    await until(lambda: Path("pid").exists() and written("pid").endswith("\n"))
    child = int(written("pid"))

    await telling.close()

    await until(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child))
    telling(DIED)
    assert not telling.pending


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


async def test_the_last_words_of_the_daemon_are_passed_on(
    telling: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "LAST_PATIENCE", 30.0)
    telling.configs = (hook("cat > last", ("daemon.stopped",)),)

    telling({"event": "daemon.stopped", "level": "info"})
    async with asyncio.timeout(20.0):
        await telling.close()

    assert "daemon.stopped" in written("last")


def test_every_event_that_has_words_can_be_chosen() -> None:
    from supervisor.observe import sentence

    told = {name for name in sentence._WORDS if name.split(".")[0] in ("daemon", "config", "kernel")}
    assert told == set(EVENTS)
