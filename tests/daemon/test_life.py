"""What comes before a daemon's life: whether another one lives it already."""

import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.control import lookup
from supervisor.control.client import Client
from supervisor.daemon import life
from supervisor.daemon.life import who_runs
from tests.cli.conftest import hanging
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.e2e.conftest import scene
from tests.e2e.daemon import Scene
from tests.waiting import DEADLINE, wait_for

__all__ = ["hanging", "scene"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of the machine's service."""
    monkeypatch.setattr(lookup, "_ETC", tmp_path)
    monkeypatch.setattr(lookup, "_RUN", tmp_path / "run")
    path = tmp_path / "kernels.toml"
    path.write_text("[kernels.a]\n")
    return path


@pytest.fixture
def service(file: Path) -> Path:
    """The socket of the service."""
    socket = file.parent / "run/kernel-supervisor/control.sock"
    socket.parent.mkdir(parents=True)
    return socket


def test_a_file_that_nobody_runs_is_free(file: Path) -> None:
    assert "" == who_runs(file, set())


def test_the_service_of_a_file_is_told_with_what_to_do(file: Path, service: Path) -> None:
    with FakeDaemon(FakeSteering(file.parent), service):
        told = who_runs(file, set())
        assert "" == who_runs(file, {service}), "it is this very daemon's place"

    assert told.startswith("another daemon (pid ")
    assert f"kernel-supervisor status --config {file}" in told
    assert "--state-dir" in told


def test_a_service_that_runs_another_file_by_now_is_no_hindrance(file: Path, service: Path) -> None:
    (file.parent / "elsewhere").mkdir()

    with FakeDaemon(FakeSteering(file.parent / "elsewhere"), service):
        assert "" == who_runs(file, set())


def test_one_that_does_not_answer_may_be_it(
    file: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "ANSWER_TIMEOUT", 0.05)
    monkeypatch.setattr(life, "lead", lambda *_, **__: lookup.Lead((hanging,), named=True))

    assert "did not answer" in who_runs(file, set())


def test_two_state_directories_on_the_command_line_share_no_socket(scene: Scene) -> None:
    """Both would be at $XDG_RUNTIME_DIR, where the second could not start."""
    scene.config.write_text(f'[supervisor]\nruntime_dir = "runtime"\n{scene.mini("a", autostart="false")}')
    (scene.directory / "xdg").mkdir(mode=0o700)
    env = scene.environment(XDG_RUNTIME_DIR=str(scene.directory / "xdg"))
    command = [sys.executable, "-m", "supervisor", "run", str(scene.config), "--state-dir"]
    states = [scene.directory / "A", scene.directory / "B"]
    daemons = [
        subprocess.Popen([*command, str(state)], env=env, stderr=subprocess.DEVNULL) for state in states
    ]
    try:
        for state in states:
            wait_for(
                lambda state=state: (state / "control.sock").is_socket(), "it listens in its own directory"
            )
            assert 200 == Client([state / "control.sock"]).ask("GET", "/v1/status").status
    finally:
        for daemon in daemons:
            daemon.terminate()
    assert [0, 0] == [daemon.wait(DEADLINE) for daemon in daemons]
