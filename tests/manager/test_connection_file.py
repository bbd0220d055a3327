"""The members of ConnectionFileMixin, which every user of it has."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from supervisor.manager import KernelManager
from supervisor.manager.connection_file import ConnectionFileMixin
from tests.kernels.using import MINI
from tests.manager.managing import Make
from tests.waiting import DEADLINE


def content(manager: KernelManager) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(manager.connection_file).read_text())
    return found


def test_the_file_may_be_written_before_the_start_which_has_the_same(make: Make, tmp_path: Path) -> None:
    manager = make()
    manager.connection_file = tmp_path / "mine.json"  # type: ignore[assignment]
    manager.write_connection_file()
    before = content(manager)
    assert 0o600 == stat.S_IMODE((tmp_path / "mine.json").stat().st_mode)
    assert manager.ports == [before[f"{name}_port"] for name in ("shell", "stdin", "iopub", "hb", "control")]

    manager.start_kernel()

    assert before | {"kernel_name": ""} == content(manager) | {"kernel_name": ""}
    for refused in (
        lambda: setattr(manager, "connection_file", "elsewhere.json"),
        manager.cleanup_random_ports,
        lambda: manager.load_connection_info(before),
    ):
        with pytest.raises(RuntimeError, match="a kernel runs"):
            refused()
    manager.shutdown_kernel()
    assert not (tmp_path / "mine.json").exists()


def test_a_file_that_was_written_and_not_used_is_removed_on_demand(make: Make, tmp_path: Path) -> None:
    manager, other = make(), make()
    manager.write_connection_file()
    file = Path(manager.connection_file)
    other.connection_file = str(file)
    other.cleanup_connection_file()
    assert file.exists()  # it is not the other's

    manager.cleanup_connection_file()
    assert not file.exists()
    manager.write_connection_file()
    manager.shutdown_kernel()
    assert not file.exists()


def test_an_address_may_be_loaded_from_another_file_or_a_part_of_one(make: Make, tmp_path: Path) -> None:
    other, manager, third = make(), make(), make()
    other.write_connection_file()

    manager.load_connection_file(other.connection_file)
    third.load_connection_info({"key": b"of-mine", "shell_port": 4711, "ip": "127.0.0.1", "unknown": 1})

    assert other.get_connection_info() == manager.get_connection_info()
    assert (b"of-mine", 4711) == (third.key, third.shell_port)
    with pytest.raises(ValueError, match="hb_port is missing or of the wrong kind"):
        make().load_connection_info({**content(other), "hb_port": "x"})
    with pytest.raises(OSError, match="none"):
        manager.load_connection_file(str(tmp_path / "none.json"))


def test_new_ports_are_chosen_for_the_next_start(make: Make) -> None:
    manager = make()
    manager.write_connection_file()
    before = manager.ports

    manager.cleanup_random_ports()
    manager.start_kernel()

    assert not set(before) & set(manager.ports)


def test_sockets_of_all_channels_are_connected_and_hear(make: Make) -> None:
    manager = make()
    manager.start_kernel()
    manager.wait_ready(DEADLINE)
    sockets = {
        name: getattr(manager, f"connect_{name}")(identity=f"me-{name}".encode())
        for name in ("shell", "iopub", "stdin", "control", "hb")
    }

    try:
        sockets["hb"].send(b"beat")
        manager.session.send(sockets["shell"], "kernel_info_request")

        assert sockets["hb"].poll(DEADLINE * 1000)
        assert sockets["shell"].poll(DEADLINE * 1000)
        assert sockets["iopub"].poll(DEADLINE * 1000)
        assert b"me-control" == sockets["control"].identity
        assert all(each.context is manager.context for each in sockets.values())
    finally:
        for socket in sockets.values():
            socket.close(0)


def test_a_blocking_client_is_had_of_any_manager(make: Make) -> None:
    manager = make(client_class="jupyter_client.asynchronous.client.AsyncKernelClient")

    assert "BlockingKernelClient" == type(manager.blocking_client()).__name__
    assert "AsyncKernelClient" == type(manager.client()).__name__
    factory = make(client_factory=lambda **keywords: manager.blocking_client())
    assert "BlockingKernelClient" == type(factory.client()).__name__


def test_a_relative_path_of_an_ipc_kernel_is_its_own(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    manager = make(transport="ipc", ip="sub/mine")

    manager.start_kernel()
    manager.wait_ready(DEADLINE)

    assert f"{tmp_path}/sub/mine" == manager.ip
    assert 5 == len(list((tmp_path / "sub").iterdir()))
    manager.cleanup_ipc_files()
    assert 5 == len(list((tmp_path / "sub").iterdir()))  # it lives, and listens there
    manager.shutdown_kernel(now=True)
    assert [] == list((tmp_path / "sub").iterdir())


def test_it_is_the_base_class_and_a_star_means_every_address() -> None:
    assert issubclass(KernelManager, ConnectionFileMixin)
    assert "0.0.0.0" == KernelManager(ip="*", kernel_cmd=MINI).ip
    assert os.path.isabs(KernelManager(connection_file="x.json").connection_file)  # noqa: PTH117 - a string
