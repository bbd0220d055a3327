"""The address as a value, and as the socket files of an ipc kernel."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.kernel.connection import CHANNELS, Address, Connection, PortTaken
from supervisor.settings.config import KernelConfig, PortsConfig
from tests.kernel.kernels import connection

CONFIG = KernelConfig(name="a")
LOCAL = "127.0.0.1"


def new(tmp_path: Path, name: str = "a") -> Connection:
    return Connection(name, tmp_path / f"kernel-{name}.json", tmp_path / "ipc")


def ports(address: Address) -> list[int]:
    return [address.port(channel) for channel in CHANNELS]


def with_ports(**given: int) -> KernelConfig:
    return KernelConfig(name="a", ports=PortsConfig(**given))


def a_free_port(tmp_path: Path) -> int:
    chooser = new(tmp_path, "chooser")
    port = chooser.choose(CONFIG, "x").shell_port
    chooser.close()
    return port


# The value


@given(
    st.tuples(*[st.integers(1, 65_535)] * 5),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_an_address_survives_its_file(five: tuple[int, ...], key: str, kernel_name: str) -> None:
    address = Address("tcp", LOCAL, *five, key=key, kernel_name=kernel_name)

    assert address == Address.from_mapping(json.loads(address.to_json()))
    assert address.to_json() == address.to_json()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", None),
        ("shell_port", "1"),
        ("hb_port", True),
        ("iopub_port", 0),
        ("stdin_port", 65536),
        ("ip", 7),
        ("transport", "udp"),
        ("signature_scheme", "hmac-md5"),
    ],
)
def test_what_is_no_address_is_refused_without_telling_the_key(field: str, value: object) -> None:
    good = Address("tcp", LOCAL, 1, 2, 3, 4, 5, key="secret").to_mapping()

    with pytest.raises(ValueError, match=field) as refusal:
        Address.from_mapping(good | {field: value})

    assert "secret" not in str(refusal.value)


def test_the_key_is_not_in_the_repr(tmp_path: Path) -> None:
    address = new(tmp_path).choose(CONFIG, "python3")

    assert address.key not in repr(address)


@pytest.mark.parametrize(
    ("transport", "ip", "endpoint"),
    [
        ("tcp", LOCAL, "tcp://127.0.0.1:5"),
        ("tcp", "*", "tcp://127.0.0.1:5"),
        ("tcp", "0.0.0.0", "tcp://127.0.0.1:5"),
        ("tcp", "::", "tcp://[::1]:5"),
        ("tcp", "::1", "tcp://[::1]:5"),
        ("ipc", "/run/k/a", "ipc:///run/k/a-5"),
    ],
)
def test_we_connect_to_loopback_or_to_the_given_address(transport: str, ip: str, endpoint: str) -> None:
    address = Address(transport, ip, 1, 2, 3, 4, 5, key="k")  # type: ignore[arg-type]

    assert endpoint == address.endpoint("hb")


# ipc


IPC = KernelConfig(name="a", transport="ipc")


def test_an_ipc_address_is_a_path_in_a_private_directory(tmp_path: Path) -> None:
    kept = new(tmp_path)

    address = kept.choose(IPC, "python3")

    assert [1, 2, 3, 4, 5] == ports(address)
    assert str(tmp_path / "ipc" / "a") == address.ip
    assert 0o700 == stat.S_IMODE((tmp_path / "ipc").stat().st_mode)
    kept.hold()
    assert not kept.is_held
    assert address == kept.choose(IPC, "python3")


def test_an_ipc_path_is_shortened_or_refused(tmp_path: Path) -> None:
    room = 100 - len(str(tmp_path)) - 1
    long = Connection("n" * 64, tmp_path / "file", tmp_path / ("d" * (room - 20)))
    assert len(long.choose(IPC, "python3").ip) <= 100

    with pytest.raises(OSError, match="shorter"):
        Connection("a", tmp_path / "file", tmp_path / ("d" * room)).choose(IPC, "python3")


def test_a_kernel_that_changes_to_ipc_and_back_keeps_its_key(tmp_path: Path) -> None:
    kept = connection(tmp_path)
    key = kept.address and kept.address.key

    assert key == kept.choose(IPC, "python3").key
    assert not kept.is_held
    assert key == kept.choose(CONFIG, "python3").key
    kept.close()


def test_stale_socket_files_are_removed_and_live_ones_are_not(tmp_path: Path) -> None:
    kept = new(tmp_path)
    address = kept.choose(IPC, "python3")
    for channel in ("shell", "control"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(address.ipc_path(channel)))  # type: ignore[arg-type]
    kept.remove_stale_sockets()
    assert [] == list((tmp_path / "ipc").iterdir())

    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(address.ipc_path("control")))
        live.listen()
        with pytest.raises(PortTaken, match="port 4"):
            kept.remove_stale_sockets()
        assert ("control", 4) == kept.taken_port()
        assert address.ipc_path("control").exists()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    kept = new(tmp_path)
    path = kept.choose(IPC, "python3").ipc_path("hb")
    path.write_text("precious")

    with pytest.raises(PortTaken, match="not a socket"):
        kept.remove_stale_sockets()

    assert "precious" == path.read_text()
