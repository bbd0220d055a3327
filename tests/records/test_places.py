"""Where the files of the kernels are, and how a person gets there."""

import os
from pathlib import Path

import pytest

from supervisor.records import places
from supervisor.records.places import Places, connect_command


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(places, "_account", lambda: "lab")
    monkeypatch.setattr(os, "geteuid", lambda: 7)


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ({}, "jupyter console --existing kernel-a.json"),
        ({"SYSTEMD_EXEC_PID": "1"}, "jupyter console --existing kernel-a.json"),
        ({"SYSTEMD_EXEC_PID": "me", "MANAGERPID": "9"}, "jupyter console --existing {dir}/kernel-a.json"),
        ({"SYSTEMD_EXEC_PID": "me"}, "sudo -u lab jupyter console --existing {dir}/kernel-a.json"),
    ],
)
def test_the_command_to_connect_works_where_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: dict[str, str], expected: str
) -> None:
    for name in ("SYSTEMD_EXEC_PID", "MANAGERPID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    for name, value in service.items():
        monkeypatch.setenv(name, value.replace("me", str(os.getpid())))

    assert expected.format(dir=tmp_path) == connect_command(Places(tmp_path, tmp_path).connection_file("a"))


def test_a_file_in_another_directory_than_jupyters_is_named_whole(tmp_path: Path) -> None:
    command = connect_command(Places(tmp_path, tmp_path / "my kernels").connection_file("a"))

    assert f"jupyter console --existing '{tmp_path}/my kernels/kernel-a.json'" == command
