"""The address of a kernel: made once, kept through everything, renewed on request."""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client import BlockingKernelClient
from msgspec.structs import replace as replace_config

from supervisor.kernel.connection import (
    CHANNELS,
    Address,
    Connection,
    FileOfAnother,
    PortOfAnother,
    read_address,
)
from supervisor.kernel.ports import PortTaken, bind, search_range
from supervisor.settings.config import KernelConfig, PortsConfig
from tests.kernel.kernels import IPYKERNEL, connection, running
from tests.kernels.using import is_ready
from tests.waiting import DEADLINE, wait_for

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


def test_a_first_address_has_five_ports_outside_the_ephemeral_range_and_a_key(tmp_path: Path) -> None:
    address = new(tmp_path).choose(CONFIG, "python3")

    assert 5 == len(set(ports(address)))
    assert all(port in search_range() for port in ports(address))
    assert 32 == len(bytes.fromhex(address.key))
    assert ("tcp", LOCAL, "hmac-sha256", "python3") == (
        address.transport,
        address.ip,
        address.signature_scheme,
        address.kernel_name,
    )


def test_the_ports_are_held_from_the_choice_on_unless_they_are_not_to_be(tmp_path: Path) -> None:
    held, other = new(tmp_path), new(tmp_path, "b")
    held.choose(CONFIG, "python3")
    other.choose(KernelConfig(name="b", hold_ports=False), "python3")

    assert held.is_held
    assert not other.is_held
    held.close()


def test_only_what_the_settings_demand_changes(tmp_path: Path) -> None:
    port = a_free_port(tmp_path)
    kept = new(tmp_path)
    first = kept.choose(CONFIG, "python3")

    assert replace(first, iopub_port=port) == kept.choose(with_ports(iopub=port), "python3")
    assert replace(first, iopub_port=port, kernel_name="other") == kept.choose(CONFIG, "other")


def test_another_ip_keeps_ports_and_key(tmp_path: Path) -> None:
    kept = new(tmp_path)
    first = kept.choose(CONFIG, "python3")
    kept.hold()

    assert replace(first, ip="*") == kept.choose(KernelConfig(name="a", ip="*"), "python3")
    assert not kept.is_held
    kept.hold()
    assert kept.is_held
    kept.close()


def test_a_kept_port_gives_way_to_a_configured_one_of_another_channel(tmp_path: Path) -> None:
    kept = new(tmp_path)
    first = kept.choose(CONFIG, "python3")

    second = kept.choose(with_ports(shell=first.hb_port), "python3")

    assert first.hb_port == second.shell_port
    assert 5 == len(set(ports(second)))


def test_a_port_configured_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PortTaken, match=r"12345 on .* is configured twice"):
        new(tmp_path).choose(with_ports(shell=12345, hb=12345), "python3")


def test_renewing_gives_other_ports_and_keeps_the_key(tmp_path: Path) -> None:
    kept = new(tmp_path)
    first = kept.choose(CONFIG, "python3")
    kept.hold()
    kept.renew()
    assert first == kept.address

    second = kept.choose(CONFIG, "python3")

    assert not set(ports(first)) & set(ports(second))
    assert first.key == second.key
    assert second == kept.choose(CONFIG, "python3")
    bind(LOCAL, first.shell_port, reuse=False).close()
    kept.close()


def test_renewing_keeps_configured_ports(tmp_path: Path) -> None:
    config = with_ports(shell=a_free_port(tmp_path))
    kept = new(tmp_path)
    first = kept.choose(config, "python3")
    kept.renew()

    second = kept.choose(config, "python3")

    assert {first.shell_port} == set(ports(first)) & set(ports(second))


def test_a_configured_port_of_another_kernel_is_refused(tmp_path: Path) -> None:
    other = new(tmp_path, "other")
    port = other.choose(CONFIG, "python3").shell_port

    with pytest.raises(PortTaken, match=f"port {port} .*belongs to kernel other"):
        new(tmp_path).choose(with_ports(shell=port), "python3")
    other.close()
    assert port == new(tmp_path).choose(with_ports(shell=port), "python3").shell_port


@pytest.mark.parametrize("is_held", [False, True])
def test_a_kept_port_that_a_stranger_listens_on_is_reported_and_kept(tmp_path: Path, is_held: bool) -> None:
    kept = new(tmp_path)
    first = kept.choose(CONFIG, "python3")
    if is_held:
        kept.hold()
    assert kept.taken_port() is None
    with bind(LOCAL, first.stdin_port, reuse=True) as stranger:
        stranger.listen()

        with pytest.raises(PortTaken, match=f"port {first.stdin_port} on {LOCAL} is in use") as refusal:
            kept.choose(CONFIG, "python3")

        assert first.stdin_port == refusal.value.port
        assert ("stdin", first.stdin_port) == kept.taken_port()
    assert first == kept.choose(CONFIG, "python3")
    kept.close()


def test_two_kernels_exchange_their_ports(tmp_path: Path) -> None:
    a, b = new(tmp_path, "a"), new(tmp_path, "b")
    first, second = a.choose(CONFIG, "x"), b.choose(CONFIG, "x")
    for kept in (a, b):
        kept.hold()
    exchanged = [
        with_ports(**{channel: its.port(channel) for channel in CHANNELS}) for its in (second, first)
    ]

    with pytest.raises(PortOfAnother, match="belongs to kernel b: restart that one"):
        a.choose(exchanged[0], "x")
    assert ports(first) == ports(b.choose(exchanged[1], "x"))
    assert ports(second) == ports(a.choose(exchanged[0], "x"))
    b.hold()
    a.hold()
    assert a.is_held
    assert b.is_held
    a.close()
    b.close()


def test_an_address_that_cannot_be_had_costs_none_of_the_present_ports(tmp_path: Path) -> None:
    kept, other = new(tmp_path, "a"), new(tmp_path, "b")
    first = kept.choose(CONFIG, "x")
    kept.hold()

    with pytest.raises(OSError, match="assign"):
        kept.choose(replace_config(CONFIG, ip="192.0.2.1"), "x")

    assert kept.is_held
    for port in ports(first):
        with pytest.raises(PortTaken):
            bind(LOCAL, port, reuse=False).close()
    with pytest.raises(PortOfAnother):
        other.choose(with_ports(shell=first.shell_port), "x")
    assert first == kept.choose(CONFIG, "x")
    kept.close()


def test_what_is_asked_for_by_several_threads_at_a_time_is_one_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, begun, go_on = new(tmp_path), threading.Event(), threading.Event()
    choose_ports = kept._choose_ports

    def slow(*arguments: Any) -> dict[str, Any]:
        begun.set()
        go_on.wait(DEADLINE)
        return choose_ports(*arguments)

    monkeypatch.setattr(kept, "_choose_ports", slow)
    with ThreadPoolExecutor() as threads:
        launch = threads.submit(kept.choose, CONFIG, "x")
        assert begun.wait(DEADLINE)
        client = threads.submit(kept.choose_once, CONFIG, "y")
        go_on.set()
        chosen = launch.result(DEADLINE)

        assert chosen is client.result(DEADLINE)
    assert chosen is kept.choose_once(CONFIG, "z")


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        KernelConfig(name="a", ports=PortsConfig(hb=7)),
        KernelConfig(name="a", transport="ipc"),
        KernelConfig(name="a", ip="192.0.2.1"),
    ],
)
def test_a_presumed_address_gives_way_to_a_chosen_one(tmp_path: Path, config: KernelConfig) -> None:
    kept = new(tmp_path)

    kept.presume(config)

    assert kept.address is not None
    assert kept.is_presumed
    assert not kept.path.exists()
    assert not kept.address.tcp_places()
    chosen = kept.choose(replace_config(config, ip=LOCAL), "x")
    assert not kept.is_presumed
    assert (config.transport, config.ports.hb or chosen.hb_port) == (chosen.transport, chosen.hb_port)
    assert all(port in search_range() or port == 7 or port <= 5 for port in ports(chosen))


def test_a_presumed_address_is_the_one_that_is_configured_whoever_listens_there(tmp_path: Path) -> None:
    with socket.create_server((LOCAL, 0)) as kernel:
        port = kernel.getsockname()[1]
        kept = new(tmp_path)

        kept.presume(with_ports(shell=port, iopub=1, stdin=2, control=3, hb=4))

        assert kept.address is not None
        assert [port, 1, 2, 3, 4] == ports(kept.address)


def test_the_file_has_the_standard_fields_and_is_private(tmp_path: Path) -> None:
    kept = Connection("a", tmp_path / "runtime" / "kernel-a.json", tmp_path / "ipc")
    address = kept.choose(CONFIG, "python3")

    assert kept.write()

    content = json.loads(kept.path.read_text())
    assert content == address.to_mapping()
    assert {f"{channel}_port" for channel in CHANNELS} < content.keys()
    assert {"ip", "key", "transport", "signature_scheme", "kernel_name"} < content.keys()
    assert 10 == len(content)
    assert 0o600 == stat.S_IMODE(kept.path.stat().st_mode)
    assert 0o700 == stat.S_IMODE(kept.path.parent.stat().st_mode)
    assert [kept.path] == list(kept.path.parent.iterdir())


def test_a_file_that_is_right_is_not_touched(tmp_path: Path) -> None:
    kept = connection(tmp_path)
    before = kept.path.stat()

    assert not kept.write()

    after = kept.path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    kept.close()


def _delete(path: Path) -> None:
    path.unlink()


def _alter(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"tcp", b"ipc"))


def _truncate(path: Path) -> None:
    path.write_bytes(b"")


def _open_to_all(path: Path) -> None:
    path.chmod(0o644)


def _link_elsewhere(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("damage", [_delete, _alter, _truncate, _open_to_all, _link_elsewhere, _make_fifo])
def test_a_damaged_file_is_repaired(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    kept = connection(tmp_path)
    content = kept.path.read_bytes()
    damage(kept.path)

    assert kept.write()

    assert content == kept.path.read_bytes()
    assert 0o100600 == kept.path.lstat().st_mode
    kept.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_that_another_user_planted_is_named_and_never_believed() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o1777)
        connection = new(Path(directory))
        connection.choose(CONFIG, "python3")
        assert connection.address is not None
        connection.path.write_bytes(connection.address.to_json())
        connection.path.chmod(0o644)
        os.chown(connection.path, 4242, -1)
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match="another user put a file there: remove it"):
                connection.write()
            with pytest.raises(PermissionError, match="it belongs to another user"):
                read_address(connection.path)
        finally:
            os.seteuid(0)


def test_holding_ends_with_release_and_with_close(tmp_path: Path) -> None:
    kept = connection(tmp_path)
    assert kept.is_held
    port = ports(kept.choose(CONFIG, "python3"))[0]

    kept.release()
    assert not kept.is_held
    bind(LOCAL, port, reuse=False).close()
    kept.hold()
    kept.close()
    kept.close()

    bind(LOCAL, port, reuse=False).close()
    assert kept.address is None


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ports_of_ipv6_addresses_are_held(tmp_path: Path) -> None:
    try:
        kept = connection(tmp_path, ip="::1")
    except OSError:
        pytest.skip("no IPv6 loopback here")

    with pytest.raises(PortTaken):
        bind("::1", kept.address.hb_port, reuse=False)  # type: ignore[union-attr]
    kept.close()


def test_a_real_kernel_binds_held_ports_and_its_address_outlives_it(tmp_path: Path) -> None:
    kept = connection(tmp_path)
    content, address = kept.path.read_bytes(), kept.address
    assert address is not None
    client = BlockingKernelClient(connection_file=str(kept.path))
    client.load_connection_file()
    client.start_channels()
    try:
        for _ in range(2):
            with running(IPYKERNEL, kept) as process:
                wait_for(lambda: is_ready(client))
                with pytest.raises(PortTaken):
                    kept.choose(CONFIG, "python3")
                with pytest.raises(PortTaken):
                    bind(LOCAL, address.shell_port, reuse=False)
                later = new(tmp_path)
                later.adopt(address)
                with pytest.raises(PortTaken):
                    later.hold()
                process.kill()
            for port in ports(address):
                with pytest.raises(PortTaken):
                    bind(LOCAL, port, reuse=False)
            later.hold()
            assert later.is_held
            later.close()
            assert address == kept.choose(CONFIG, "python3")
            assert not kept.write()
            assert content == kept.path.read_bytes()
    finally:
        client.stop_channels()
        kept.close()


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
        ("ip", "x" * 300),
        ("ip", "127.0.0.1\0"),
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


def test_the_file_of_another_kernel_that_lives_is_neither_replaced_nor_removed(tmp_path: Path) -> None:
    """As where two supervisors have a kernel of one name and one directory."""
    its, ours = new(tmp_path), new(tmp_path)
    there = its.choose(CONFIG, "x")
    its.write()
    ours.choose(CONFIG, "x")

    with bind(LOCAL, there.hb_port, reuse=True) as listening:
        listening.listen()
        with pytest.raises(FileOfAnother, match=f"port {there.hb_port} .* of a kernel of another program"):
            ours.refuse_file_of_another()
        ours.remove()
        its.refuse_file_of_another()

        assert its.is_written
    ours.refuse_file_of_another()
    ours.remove()
    assert not its.path.exists()
    its.close()
    ours.close()
