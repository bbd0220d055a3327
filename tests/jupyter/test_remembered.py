"""What a server knows of kernels and sessions before it has reached the daemon."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from supervisor.jupyter.remembered import Remembered

VIEW: dict[str, Any] = {
    "id": "i",
    "name": "a",
    "display_name": "A",
    "language": "python",
    "launch": "python3",
    "connection_file": "/run/kernel-a.json",
    "on_client_shutdown": "detach",
    "recorder": {"max_bytes": 0, "max_age": 1.0},
    "record": "/state/recorder/i.sqlite",
}
ROW = {"session_id": "s", "path": "a.ipynb", "name": "", "type": "notebook", "kernel_id": "i"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    return tmp_path / "kernel-supervisor"


def of(root: str = "/root", daemon: str = "") -> Remembered:
    return Remembered(root, daemon)


def test_the_next_server_of_the_directory_and_the_daemon_knows_them(folder: Path) -> None:
    before = of()
    before.keep("views", [{**VIEW, "phase": "running"}])
    before.keep("sessions", [{**ROW, "more": 1}])

    assert ([VIEW], [ROW]) == (of()["views"], of()["sessions"])
    assert [] == of(root="/other")["views"] == of(daemon="/socket")["views"]
    (file,) = folder.iterdir()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


def test_what_is_as_it_was_is_not_written(folder: Path) -> None:
    known = of()
    known.keep("views", [VIEW])
    (file,) = folder.iterdir()
    before = file.stat().st_ino

    known.keep("views", [{**VIEW, "phase": "failed"}])

    assert before == file.stat().st_ino


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"views": [{}], "sessions": []}'])
def test_a_file_that_is_none_costs_what_it_had_and_no_more(
    folder: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    of().keep("views", [VIEW])
    (file,) = folder.iterdir()
    file.write_text(content)

    known = of()

    assert [] == known["views"] == known["sessions"]
    assert "open pages must be reloaded" in caplog.text
    known.keep("sessions", [ROW])
    assert [ROW] == of()["sessions"]


def test_a_disk_that_takes_nothing_costs_what_the_next_server_knows(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("no directory")
    known = of()

    known.keep("views", [VIEW])

    assert [VIEW] == known["views"]
    assert "a restart of this server will lose sessions" in caplog.text
