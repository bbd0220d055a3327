"""A kernel whose sockets nobody but its account reaches, through a real ssh to this machine."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.kernel import jobs
from supervisor.machines.relay import CHANNELS
from tests.machines.nodes import IPYKERNEL, Job, client, running, value_of
from tests.machines.sshd import Sshd, serving
from tests.machines.test_relay import Relay, free_ports, is_refused
from tests.waiting import wait_for


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    with serving(tmp_path / "ssh") as made:
        monkeypatch.setenv("PATH", made.path)
        yield made


@pytest.fixture
def relay(tmp_path: Path, sshd: Sshd) -> Iterator[Relay]:
    made = Relay(tmp_path / "relay")
    yield made
    made.close()
    wait_for(lambda: not sshd.sessions(), "its ssh ends with it")


def sockets(job: Job) -> list[tuple[str, str]]:
    """Where it is, as a relay is told."""
    return [(host, str(path)) for host, path in jobs.target_of({**job.place(), "node": "n1"})]


def test_its_sockets_are_in_a_directory_that_is_its_own_and_goes_with_it(tmp_path: Path) -> None:
    with running(tmp_path / "run", IPYKERNEL, via="ssh") as job:
        place = job.place()
        directory = Path(place["ip"]).parent
        wait_for(lambda: len(list(directory.iterdir())) == len(CHANNELS), "it listens")

        assert 0o700 == stat.S_IMODE(directory.stat().st_mode)
        assert "ipc" == place["transport"]
        os.killpg(place["pid"], signal.SIGKILL)
        job.end()
        assert not directory.exists()


def test_a_stock_client_at_the_local_address_reaches_it_there(tmp_path: Path, relay: Relay) -> None:
    local = free_ports()
    with running(tmp_path / "run", IPYKERNEL, via="ssh") as job:
        relay.lead("a", local, sockets(job))
        with client(local) as asking:
            assert "42\n" == value_of(asking, "print(6 * 7)")
        assert 0o600 == stat.S_IMODE(next(relay.directory.glob("relay.ssh.*")).stat().st_mode)


def test_a_client_goes_on_when_it_moves(tmp_path: Path, relay: Relay, sshd: Sshd) -> None:
    local = free_ports()
    with (
        running(tmp_path / "one", IPYKERNEL, via="ssh") as one,
        running(tmp_path / "two", IPYKERNEL, via="ssh") as two,
        running(tmp_path / "near", IPYKERNEL) as near,
        client(local) as asking,
    ):
        for target in (sockets(one), sockets(two), near.target(), sockets(one)):
            relay.lead("a", local, target)
            code = "for i in range(20): print(i)"
            assert "".join(f"{i}\n" for i in range(20)) == value_of(asking, code)
        relay.lead("a", local)
        assert is_refused(local[0])
        wait_for(lambda: not sshd.sessions(), "no ssh is left")
        assert [] == list(relay.directory.glob("relay.ssh.*"))


def test_an_ssh_that_ends_is_begun_again_and_meanwhile_it_refuses(
    tmp_path: Path, relay: Relay, sshd: Sshd
) -> None:
    local = free_ports()
    with running(tmp_path / "run", IPYKERNEL, via="ssh") as job:
        relay.lead("a", local, sockets(job))
        with client(local) as asking:
            assert "1\n" == value_of(asking, "kept = 1; print(kept)")
            sshd.stop()
            for pid in children_of(relay.process.pid):
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda: is_refused(local[0]), "it refuses")
            sshd.start()

            assert "1\n" == value_of(asking, "print(kept)")


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
