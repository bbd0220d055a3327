"""Ports: chosen where nobody's outgoing connection goes, never twice, kept from others."""

from __future__ import annotations

import gc
import socket
import threading
from pathlib import Path

import pytest

from supervisor.kernel import ports
from supervisor.kernel.ports import Claims, Holds, PortTaken, bind, is_listened_on, reachable_ip, search_range

LOCAL = "127.0.0.1"


class Owner:
    """Anything that can be weakly referred to."""


def free_port() -> int:
    return Claims().pick(Owner(), LOCAL, 1)[0]


def test_ports_are_sought_below_the_ephemeral_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_EPHEMERAL_FILE", tmp_path / "range")
    (tmp_path / "range").write_text("20000\t30000\n")

    assert range(10_000, 20_000) == search_range()


def test_ports_are_sought_above_an_ephemeral_range_that_leaves_no_room_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_EPHEMERAL_FILE", tmp_path / "range")
    (tmp_path / "range").write_text("1024\t60000\n")

    assert range(60_001, 65_536) == search_range()


@pytest.mark.parametrize("text", ["1024 65535", "1 2 3", "nonsense", ""])
def test_there_is_always_a_range(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_EPHEMERAL_FILE", tmp_path / "range")
    (tmp_path / "range").write_text(text)

    assert len(search_range()) >= 20_000


def test_picked_ports_are_in_the_range_and_free() -> None:
    picked = Claims().pick(Owner(), LOCAL, 50)

    assert 50 == len(set(picked))
    assert all(port in search_range() and not is_listened_on(LOCAL, port) for port in picked)


def test_a_port_that_another_process_only_holds_is_not_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Claims().pick(Owner(), LOCAL, 2)
    monkeypatch.setattr(ports, "search_range", lambda: range(min(first, second), max(first, second) + 1))
    monkeypatch.setattr(ports.secrets, "choice", _take([first, first, second]))
    holds = Holds()
    holds.take([(LOCAL, first)])

    assert [second] == Claims().pick(Owner(), LOCAL, 1)
    holds.keep_only(())


def test_picked_ports_are_held_from_the_moment_that_they_were_found_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = Claims().pick(Owner(), LOCAL, 2)
    monkeypatch.setattr(ports.secrets, "choice", _take([first, first, second]))
    holds = Holds()
    picked = Claims().pick(Owner(), LOCAL, 1, holds=holds)

    assert [first] == picked
    assert holds.covers([(LOCAL, first)])
    assert [second] == Claims().pick(Owner(), LOCAL, 1)  # of another process, say
    with bind(LOCAL, first, reuse=True) as kernel:
        kernel.listen()  # beside it
    holds.keep_only(())


def test_holds_end_with_their_owner() -> None:
    holds = Holds()
    [port] = Claims().pick(Owner(), LOCAL, 1, holds=holds)
    del holds

    bind(LOCAL, port, reuse=False).close()


def _take(values: list[int]):  # type: ignore[no-untyped-def]
    left = iter(values)
    return lambda _: next(left)


def test_asking_for_more_ports_than_there_are_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(ports, "search_range", lambda: range(port, port + 1))

    with pytest.raises(OSError, match="no 2 free ports"):
        Claims().pick(Owner(), LOCAL, 2)


def test_threads_that_pick_at_once_never_share_a_port() -> None:
    claims, owners, found = Claims(), [Owner() for _ in range(20)], []
    threads = [
        threading.Thread(target=lambda owner=owner: found.extend(claims.pick(owner, LOCAL, 5)))  # type: ignore[misc]
        for owner in owners
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 100 == len(found) == len(set(found))


def test_a_claim_overlaps_with_one_for_every_address() -> None:
    claims, owner, other = Claims(), Owner(), Owner()
    claims.claim(owner, [("*", 12_345)])

    assert owner is claims.other_owner(LOCAL, 12_345, than=other)
    assert claims.other_owner(LOCAL, 12_345, than=owner) is None
    assert claims.other_owner(LOCAL, 12_346, than=other) is None


def test_a_claim_ends_with_its_owner() -> None:
    claims, owner = Claims(), Owner()
    claims.claim(owner, [(LOCAL, 12_345)])
    del owner
    gc.collect()

    assert claims.other_owner(LOCAL, 12_345, than=Owner()) is None


@pytest.mark.parametrize("ip", [LOCAL, "*", "localhost"])
def test_a_plain_bind_is_refused_while_a_port_is_held(ip: str) -> None:
    place = (ip, free_port())
    holds = Holds()
    holds.take([place])
    holds.take([place])

    with pytest.raises(PortTaken) as refusal:
        bind(*place, reuse=False)

    assert place[1] == refusal.value.port
    assert holds.covers([place])
    holds.keep_only(())
    bind(*place, reuse=False).close()
    assert not holds.covers([place])


def test_a_held_port_is_not_listened_on_until_somebody_does() -> None:
    place = (LOCAL, free_port())
    holds = Holds()
    holds.take([place])

    assert not is_listened_on(*place)
    with bind(*place, reuse=True) as kernel:
        kernel.listen()
        assert is_listened_on(*place)
    assert not is_listened_on(*place)
    holds.keep_only(())


def test_one_port_that_is_taken_does_not_keep_the_others_from_being_held() -> None:
    taken, free = Claims().pick(Owner(), LOCAL, 2)
    holds = Holds()
    with bind(LOCAL, taken, reuse=True) as stranger:
        stranger.listen()
        with pytest.raises(PortTaken, match=f"port {taken} on {LOCAL} is in use"):
            holds.take([(LOCAL, taken), (LOCAL, free)])

    assert holds.covers([(LOCAL, free)])
    holds.keep_only(())


def test_a_hold_is_taken_although_connections_linger() -> None:
    port = free_port()
    with bind(LOCAL, port, reuse=True) as server:
        server.listen()
        with socket.create_connection((LOCAL, port)) as client:
            accepted, _ = server.accept()
            accepted.close()  # the side that closes first has TIME_WAIT
            assert b"" == client.recv(1)
    holds = Holds()
    holds.take([(LOCAL, port)])

    assert holds.covers([(LOCAL, port)])
    holds.keep_only(())


def test_no_child_inherits_a_hold() -> None:
    with bind(LOCAL, free_port(), reuse=True) as held:
        assert not held.get_inheritable()


def test_an_address_of_another_machine_is_an_error_of_its_own() -> None:
    with pytest.raises(OSError, match="assign") as refusal:
        bind("192.0.2.1", 12_345, reuse=True)

    assert not isinstance(refusal.value, PortTaken)


@pytest.mark.parametrize(
    ("ip", "reachable"), [("*", LOCAL), ("0.0.0.0", LOCAL), ("::", "::1"), ("10.0.0.7", "10.0.0.7")]
)
def test_a_kernel_that_listens_everywhere_is_reached_on_loopback(ip: str, reachable: str) -> None:
    assert reachable == reachable_ip(ip)
