"""The daemon's side of the relay: starting, taking up, mending it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from supervisor.machines import relays
from supervisor.machines.relay import SOCKET
from supervisor.machines.relays import LOCK, RelayError, Relays
from tests.machines.nodes import IPYKERNEL, async_client, async_value_of, running
from tests.machines.test_relay import HB, Target, connect, free_ports, is_refused, read_all
from tests.waiting import until, wait_for

MARK = {"KERNEL_SUPERVISOR_RUN": "0123456789abcdef/relay"}
Told = list[tuple[str, dict[str, object]]]


@asynccontextmanager
async def looked_after(directory: Path, told: Told | None = None) -> AsyncIterator[Relays]:
    """A daemon, so to speak; what it leaves is ended only by ``ended``."""

    def tell(event: str, fields: dict[str, object]) -> None:
        if told is not None:
            told.append((event, fields))

    made = Relays(directory, MARK, tell)
    try:
        yield made
    finally:
        await made.close()


def pid_of(directory: Path) -> int:
    """The relay of a directory."""
    return int((directory / LOCK).read_text())


@pytest.fixture(autouse=True)
async def _nothing_is_left(tmp_path: Path) -> AsyncIterator[None]:
    yield
    if (tmp_path / LOCK).exists():
        os.close(await asyncio.to_thread(relays._take_lock, tmp_path, "=".join(*MARK.items())))
        with suppress(ValueError, ChildProcessError):  # nobody waits for one that was left on purpose
            await asyncio.to_thread(os.waitpid, pid_of(tmp_path), 0)


@pytest.fixture
def target() -> Iterator[Target]:
    with closing(Target()) as made:
        yield made


async def passes(local: tuple[tuple[str, int], ...], target: Target) -> None:
    """See that something passes through."""

    def talk() -> None:
        with wait_for(lambda: try_to_connect(local[HB])) as near, target.accept(HB) as far:
            far.sendall(b"beat")
            assert b"beat" == near.recv(9)

    await asyncio.to_thread(talk)


def try_to_connect(place: tuple[str, int]) -> socket.socket | None:
    try:
        return connect(place)
    except ConnectionRefusedError:
        return None


async def test_there_is_one_with_the_first_address_and_none_after_the_last(
    tmp_path: Path, target: Target
) -> None:
    told: Told = []
    local, more = free_ports(), free_ports()
    async with looked_after(tmp_path, told) as of:
        assert {} == await of.take_up()
        assert not (tmp_path / LOCK).exists()
        await of.add("a", local)
        assert is_refused(local[HB])
        await of.add("b", more)
        await of.point("a", target.places)
        await passes(local, target)
        await of.cut("a")
        assert is_refused(local[HB])
        await of.remove("a")
        await of.remove("b")
        await of.remove("b")

        await until(lambda: not (tmp_path / SOCKET).exists())
        assert ["relay.started"] == [event for event, _ in told]
        await of.add("a", local)
        await of.point("a", target.places)
        await passes(local, target)


async def test_the_next_daemon_takes_it_up_and_nobody_is_cut(tmp_path: Path, target: Target) -> None:
    local, told = free_ports(), Told()
    async with looked_after(tmp_path) as of:
        await of.add("a", local)
        await of.add("b", more := free_ports())
        await of.point("a", target.places)
    pid = pid_of(tmp_path)
    with connect(local[HB]) as near, target.accept(HB) as far:
        async with looked_after(tmp_path, told) as of:
            found = await of.take_up()
            assert [("a", local, target.places), ("b", more, None)] == [
                (name, address.local, address.target) for name, address in found.items()
            ]
            await of.add("a", local)
            await of.point("a", target.places)
            far.sendall(b"still here")
            assert b"still here" == near.recv(99)
            assert [("relay.adopted", {"pid": pid})] == told
            assert pid == pid_of(tmp_path)


async def test_it_ends_with_the_daemon_if_every_address_leads_nowhere(tmp_path: Path, target: Target) -> None:
    async with looked_after(tmp_path) as of:
        await of.add("a", free_ports())
        await of.add("b", free_ports())
        await of.point("a", target.places)
        await of.cut("a")
        pid = pid_of(tmp_path)
    await until(lambda: not is_alive(pid))


@pytest.mark.parametrize("is_adopted", [False, True])
async def test_one_that_dies_is_mended_within_a_second_at_the_same_ports(
    tmp_path: Path, target: Target, is_adopted: bool
) -> None:
    local, held, told = free_ports(), free_ports(), Told()
    async with looked_after(tmp_path, told) as first:
        await first.add("a", local)
        await first.add("b", held)
        await first.point("a", target.places)
        if is_adopted:
            await first.close()
        async with looked_after(tmp_path, told) as second:
            if is_adopted:
                await second.take_up()
            for _ in range(3):
                pid = pid_of(tmp_path)
                told.clear()
                with connect(local[HB]) as near, target.accept(HB):
                    os.kill(pid, signal.SIGKILL)
                    began = time.monotonic()
                    assert b"" == await asyncio.to_thread(read_all, near)
                await until(lambda: "relay.started" in [event for event, _ in told])
                await passes(local, target)
                assert time.monotonic() - began < 1 + 5  # a second, where nobody else works

                assert ["relay.failed", "relay.started"] == [event for event, _ in told]
                assert {"pid": pid, "detail": "it has ended"} == told[0][1]
                assert is_refused(held[HB])
                assert pid != pid_of(tmp_path)


async def test_a_kernel_and_its_client_live_through_the_death_of_the_relay(tmp_path: Path) -> None:
    local, told = free_ports(), Told()
    with running(tmp_path / "run", IPYKERNEL) as job:
        async with looked_after(tmp_path, told) as of:
            await of.add("a", local)
            await of.point("a", job.target())
            with async_client(local) as asking:
                await async_value_of(asking, "kept = 42")
                for _ in range(5):
                    told.clear()
                    os.kill(pid_of(tmp_path), signal.SIGKILL)
                    await until(lambda: "relay.started" in [event for event, _ in told])

                    assert "42\n" == await async_value_of(asking, "print(kept)")


async def test_one_that_does_not_answer_is_ended_and_another_has_all(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "PATIENCE", 0.3)
    local = free_ports()
    async with looked_after(tmp_path) as of:
        await of.add("a", local)
        os.kill(stopped := pid_of(tmp_path), signal.SIGSTOP)
        await of.point("a", target.places)

        assert stopped != pid_of(tmp_path)
        await passes(local, target)
        os.kill(stopped := pid_of(tmp_path), signal.SIGSTOP)
        await of.close()
    async with looked_after(tmp_path) as of:
        assert {} == await of.take_up()
        assert not is_alive(stopped)


async def test_one_that_stops_is_found_out_though_nothing_is_asked_of_it(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "PATIENCE", 0.3)
    monkeypatch.setattr(relays, "LOOK", 0.1)
    local, told = free_ports(), Told()
    async with looked_after(tmp_path, told) as of:
        await of.add("a", local)
        await of.point("a", target.places)
        os.kill(stopped := pid_of(tmp_path), signal.SIGSTOP)

        await until(
            lambda: ["relay.started", "relay.failed", "relay.started"] == [event for event, _ in told]
        )
        assert not is_alive(stopped)
        await passes(local, target)


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


async def test_one_whose_socket_was_removed_is_ended_and_another_started(
    tmp_path: Path, target: Target
) -> None:
    local = free_ports()
    async with looked_after(tmp_path) as of:
        await of.add("a", local)
        (tmp_path / SOCKET).unlink()
        await of.point("a", target.places)

        await passes(local, target)


async def test_a_port_that_another_has_is_told_and_others_are_as_they_were(
    tmp_path: Path, target: Target
) -> None:
    local, taken = free_ports(), free_ports()
    async with looked_after(tmp_path) as of:
        with socket.create_server(taken[HB]):
            with pytest.raises(RelayError, match=r"a: .*in use"):
                await of.add("a", taken)
            await of.add("b", local)
            with pytest.raises(RelayError, match=r"a: .*in use"):
                await of.add("a", taken)
        with pytest.raises(RelayError, match="a: it has no address"):
            await of.point("a", target.places)
        await of.add("a", taken)
        await of.point("b", target.places)
        await passes(local, target)


async def test_another_address_of_the_same_kernel_takes_the_place_of_the_old(tmp_path: Path) -> None:
    before, after = free_ports(), free_ports()
    async with looked_after(tmp_path) as of:
        await of.add("a", before)
        await of.add("b", free_ports())
        await of.add("a", after)

        await of.add("c", before)


async def test_a_port_that_was_stolen_while_it_was_mended_is_had_again_later(
    tmp_path: Path, target: Target
) -> None:
    told: Told = []
    local = free_ports()
    async with looked_after(tmp_path, told) as of:
        await of.add("a", local)
        await of.point("a", target.places)
        pid = pid_of(tmp_path)
        thief = socket.socket()
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with thief:
            os.kill(pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not is_alive(pid))
            thief.bind(local[HB])
            thief.listen()
            await until(lambda: any("in use" in str(fields.get("detail")) for _, fields in told))
        await passes(local, target)


async def test_whoever_else_listens_there_is_not_believed(tmp_path: Path, target: Target) -> None:
    local = free_ports()
    with socket.socket(socket.AF_UNIX) as liar:
        liar.bind(str(tmp_path / SOCKET))
        liar.listen()
        async with looked_after(tmp_path) as of:
            assert {} == await of.take_up()
            await of.add("a", local)
            await of.point("a", target.places)
            await passes(local, target)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"x\n",
        b"{}\n",
        b"null\n",
        b"[]\n",
        b'{"addresses": {"a": 1}}\n',
        b'{"addresses": {"a": {"local": [1], "target": 2}}}\n',
    ],
)
async def test_answers_that_nobody_understands_are_no_relay(tmp_path: Path, answer: bytes) -> None:
    async with looked_after(tmp_path) as of:
        with socket.socket(socket.AF_UNIX) as liar:
            liar.bind(str(tmp_path / SOCKET))
            liar.listen()

            def lie() -> None:
                with liar.accept()[0] as sock:
                    sock.recv(1 << 16)
                    sock.sendall(answer)

            lying = asyncio.create_task(asyncio.to_thread(lie))
            assert {} == await of.take_up()
            await lying


async def test_one_that_cannot_be_started_is_told_and_tried_again_with_the_next_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('it is broken')")
    async with looked_after(tmp_path) as of:
        with monkeypatch.context() as patch:
            patch.setattr(relays, "RELAY", broken)
            with pytest.raises(RelayError, match="cannot be started: it is broken"):
                await of.add("a", free_ports())
        await of.add("a", free_ports())


async def test_an_order_whose_giver_is_cancelled_is_carried_out(tmp_path: Path, target: Target) -> None:
    local = free_ports()
    async with looked_after(tmp_path) as of:
        for _ in range(5):
            adding = asyncio.create_task(of.add("a", local))
            await asyncio.sleep(0)
            adding.cancel()
        await of.add("a", local)
        await of.point("a", target.places)
        await passes(local, target)


def variables_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_it_has_nothing_of_our_environment_but_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the daemon")
    async with looked_after(tmp_path) as of:
        await of.add("a", free_ports())
        environment = variables_of(pid_of(tmp_path))

        assert b"of the daemon" not in environment
        assert "=".join(*MARK.items()).encode() in environment.split(b"\0")


async def test_a_thousand_kernels_with_a_client_each_are_mended_too(tmp_path: Path, target: Target) -> None:
    # Addresses that no other program has.
    names = {
        f"k{n}": tuple((f"127.77.{n // 250}.{n % 250 + 1}", 2001 + c) for c in range(5)) for n in range(1000)
    }
    told: Told = []
    async with looked_after(tmp_path, told) as of:
        for name, local in names.items():
            await of.add(name, local)
            await of.point(name, target.places)
        with ExitStack() as connected:
            for local in names.values():
                connected.enter_context(connect(local[HB]))
                connected.enter_context(target.accept(HB))
            told.clear()
            os.kill(pid_of(tmp_path), signal.SIGKILL)
            await until(lambda: "relay.started" in [event for event, _ in told])
            for name in ("k0", "k500", "k999"):
                await passes(names[name], target)
    async with looked_after(tmp_path) as of:
        found = await of.take_up()
        assert names == {name: address.local for name, address in found.items()}
