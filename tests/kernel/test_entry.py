"""The effects on one kernel, on real processes: in their order, each answered, nothing left behind."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from supervisor.cgroups.tree import Tree
from supervisor.core.actions import (
    Apply,
    AskToExit,
    Renew,
    Spawn,
    Withdraw,
)
from supervisor.core.events import Exited, Ready, Spawned
from supervisor.core.model import Cause
from supervisor.kernel import entry as entries
from supervisor.kernel.connection import CHANNELS
from supervisor.records.record import Record
from tests.kernel.hosting import Hosting, config, take_over
from tests.waiting import DEADLINE, until


def address(hosting: Hosting) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(hosting.places.connection_file("a").read_bytes())
    return found


def ports(found: dict[str, Any]) -> list[int]:
    return [found[f"{channel}_port"] for channel in CHANNELS]


def can_bind(port: int) -> bool:
    with socket.socket() as other:
        try:
            other.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


async def test_a_launch_is_answered_by_its_process_then_ready_then_exited(hosting: Hosting) -> None:
    spawned = await hosting.run(config())
    exited = await hosting.kill(spawned)

    assert [Spawned, Ready, Exited] == [type(fact) for fact in hosting.facts]
    assert ("SIGKILL", Cause.KILLED) == (exited.exit.signal, exited.exit.cause)
    assert "console --existing" in hosting.of(Ready)[0].connect


async def test_new_ports_that_are_ordered_during_a_launch_come_with_the_next_one(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    launching = asyncio.Event()
    loop = asyncio.get_running_loop()
    choose = hosting.entry().connection.choose

    def slow(*settings: Any) -> Any:
        loop.call_soon_threadsafe(launching.set)
        renewed.wait(0.2)  # as long as it may take to be ordered in the meantime
        return choose(*settings)

    import threading

    renewed = threading.Event()
    monkeypatch.setattr(hosting.entry().connection, "choose", slow)
    task = asyncio.create_task(hosting.run(config()))
    await launching.wait()
    renew = hosting.begin(Renew("a"))
    spawned = await task
    await renew
    before = address(hosting)
    await hosting.kill(spawned)

    await hosting.run(config(), 2)

    assert not set(ports(before)) & set(ports(address(hosting)))
    assert before["key"] == address(hosting)["key"]


async def test_a_kernel_whose_cgroup_cannot_be_made_is_there_all_the_same_and_that_is_told(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(*_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Tree, "place", place)

    await hosting.run(config())

    told = "a: it is without a cgroup until its next start: No such file or directory"
    assert ("limits of a", told) in hosting.troubles


async def test_a_limit_that_is_not_in_force_is_told_as_long_as_there_is_a_run(hosting: Hosting) -> None:
    await hosting.run(config())
    entry = hosting.entry()
    assert entry.run is not None
    entry.run.handle.confinement.refused = "nice = -1 cannot be set"

    entry.tell_limits()
    await hosting.perform(Withdraw("a"))

    assert [("limits of a", "a: nice = -1 cannot be set"), ("limits of a", None)] == hosting.troubles[-2:]


async def test_a_withdrawal_never_removes_the_file_of_the_run_that_was_ordered_after_it(
    hosting: Hosting,
) -> None:
    await hosting.kill(await hosting.run(config()))

    withdrawal = hosting.begin(Withdraw("a"))
    await asyncio.sleep(0)
    await hosting.run(config(), 2)
    await withdrawal

    assert hosting.places.connection_file("a").exists()


async def test_an_edit_of_a_live_key_counts_from_the_next_interrupt(hosting: Hosting) -> None:
    settings = config("--ignore", "SIGINT")
    await hosting.run(settings)
    run = hosting.entry().run
    assert run is not None
    edited = config("--ignore", "SIGINT", interrupt_mode="message")

    await hosting.perform(Apply("a", edited))
    assert "message" == run.interrupt_mode
    await hosting.perform(Apply("a", settings))

    assert "signal" == run.interrupt_mode


# The record


async def test_the_intent_is_on_record_before_the_process_exists(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = hosting.entry()._launcher.spawn
    seen: list[Record | None] = []

    def spawn(*arguments: Any) -> Any:
        seen.append(hosting.record())
        return launch(*arguments)

    monkeypatch.setattr(hosting.entry()._launcher, "spawn", spawn)
    await hosting.spawn(config())

    (intent,) = seen
    assert intent is not None
    assert (1, None) == (intent.generation, intent.process)
    assert intent.address is not None
    assert address(hosting)["key"] == intent.address["key"]
    assert config() == intent.launched


async def test_a_disk_that_hangs_delays_a_launch_and_does_not_prevent_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    class Hanging:
        gate = threading.Event()

        def write(self, record: Record) -> None:
            self.gate.wait(DEADLINE)

        def remove(self, name: str) -> None:
            """Nothing."""

    monkeypatch.setattr(entries, "INTENT_PATIENCE", 0.05)
    hosting = Hosting(tmp_path, Hanging())

    await hosting.spawn(config())

    Hanging.gate.set()
    await hosting.close()


# Adoption


async def test_an_adopted_kernel_is_asked_to_exit_though_the_adoption_is_under_way(
    hosting: Hosting, next_host: Hosting
) -> None:
    spawned = await take_over(hosting, next_host, config())

    adoption = next_host.begin_adoption(spawned, config())
    await next_host.perform(AskToExit("a", 1))
    await adoption

    assert "a" == (await next_host.first(Exited)).kernel


async def test_what_was_edited_while_nobody_watched_is_in_force_after_the_adoption(
    hosting: Hosting, next_host: Hosting
) -> None:
    spawned = await take_over(hosting, next_host, config())

    adoption = next_host.begin_adoption(spawned, config())
    await next_host.perform(Apply("a", config(nice=7)))
    await adoption

    assert 7 == os.getpriority(os.PRIO_PROCESS, spawned.process.pid)


async def test_the_ports_of_an_adopted_kernel_are_held_from_its_death_on(
    hosting: Hosting, next_host: Hosting
) -> None:
    spawned = await take_over(hosting, next_host, config())
    await next_host.adopt(spawned, config())
    assert not next_host.entry().connection.is_held

    await next_host.kill(spawned)

    assert next_host.entry().connection.is_held
    assert [False] * 5 == [can_bind(port) for port in ports(address(next_host))]


async def test_the_ports_of_a_kernel_that_nobody_runs_are_held_from_its_recall_on(
    hosting: Hosting, next_host: Hosting
) -> None:
    spawned = await hosting.run(config())
    await hosting.kill(spawned)
    await hosting.leave()
    found = hosting.record()
    assert found is not None

    next_host.host.recall([found])

    assert next_host.entry().connection.is_held


async def test_a_kernel_keeps_its_id_and_its_language_whatever_supervisor_it_has(
    hosting: Hosting, next_host: Hosting
) -> None:
    before = hosting.entry().id
    await take_over(hosting, next_host, config())
    after = next_host.entry()

    assert 36 == len(before)
    assert (before, "python") == (after.id, after.language)


async def test_the_connection_file_of_an_adopted_kernel_is_there_again(
    hosting: Hosting, next_host: Hosting
) -> None:
    spawned = await take_over(hosting, next_host, config())
    before = hosting.places.connection_file("a").read_bytes()
    hosting.places.connection_file("a").unlink()

    await next_host.adopt(spawned, config())

    assert before == hosting.places.connection_file("a").read_bytes()


async def test_what_is_gone_when_it_is_adopted_has_exited(hosting: Hosting, next_host: Hosting) -> None:
    spawned = await take_over(hosting, next_host, config())
    os.kill(spawned.process.pid, 9)
    os.waitid(os.P_PID, spawned.process.pid, os.WEXITED)  # noqa: ASYNC222 - it is as good as dead

    await next_host.adopt(spawned, config())

    assert Cause.UNKNOWN is (await next_host.first(Exited)).exit.cause


async def test_what_cannot_be_watched_yet_is_watched_later(
    hosting: Hosting, next_host: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "ADOPT_INTERVAL", 0.01)
    spawned = await take_over(hosting, next_host, config())
    errors = [OSError(24, "Too many open files")] * 3
    adopted = entries.AdoptedKernel

    def scarce(*arguments: Any, **keywords: Any) -> Any:
        if errors:
            raise errors.pop()
        return adopted(*arguments, **keywords)

    monkeypatch.setattr(entries, "AdoptedKernel", scarce)
    await next_host.adopt(spawned, config())

    await next_host.kill(spawned)


# ipc, files, output


async def test_the_sockets_of_an_ipc_kernel_go_with_its_connection_file(hosting: Hosting) -> None:
    spawned = await hosting.run(config(transport="ipc"))
    sockets = [Path(f"{address(hosting)['ip']}-{port}") for port in ports(address(hosting))]
    assert all(stat.S_ISSOCK(path.stat().st_mode) for path in sockets)
    await hosting.kill(spawned)

    await hosting.perform(Withdraw("a"))

    assert [] == [path for path in sockets if path.exists()]


async def test_a_kernel_that_dies_while_it_is_still_being_adopted_is_launched_with_room_kept_for_it(
    hosting: Hosting,
    next_host: Hosting,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spawned = await take_over(hosting, next_host, config())
    entry, host = next_host.entry(), next_host.host
    adopted, launched = threading.Event(), threading.Event()
    monkeypatch.setattr(type(entry.connection), "is_written", property(lambda _: adopted.wait(DEADLINE)))
    adoption = next_host.begin_adoption(spawned, config())
    await until(lambda: entry.run is not None)
    await next_host.kill(spawned)

    launch = next_host.begin(Spawn("a", 2, config()))
    monkeypatch.setattr(entry.connection, "refuse_file_of_another", lambda: launched.wait(DEADLINE))
    await until(lambda: len(host._starting) == 2)
    adopted.set()
    await adoption
    kept = [*host._starting]
    launched.set()
    await launch

    assert [("a", 2)] == kept
    assert {} == host._starting
