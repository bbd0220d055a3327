"""What comes before a daemon's life: whether another one lives it already."""

import ast
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
from tests.test_layers import GRAPH, MODULES, imports
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


def test_a_state_directory_that_cannot_be_written_is_told_as_such(scene: Scene) -> None:
    scene.config.write_text(scene.mini("a", autostart="false"))
    state = scene.config / "state"
    command = [sys.executable, "-m", "supervisor", "run", str(scene.config), "--state-dir", str(state)]
    ran = subprocess.run(
        command, check=False, env=scene.environment(), capture_output=True, text=True, timeout=DEADLINE
    )
    assert (1, "") == (ran.returncode, ran.stdout)
    assert f"{state}: Not a directory: what the daemon must keep has no place in this state_dir" in ran.stderr


def test_a_daemon_that_serves_loads_none_of_our_code_any_more() -> None:
    """An upgrade may have exchanged it: what is imported within functions is loaded at the start as well.

    At the latest when the door is opened, with ``serving``.
    """
    trees = {module.name: module for module in MODULES}

    def at_top(name: str) -> set[str]:
        top = ast.Module([node for node in trees[name].tree.body if not isinstance(node, ast.If)], [])
        bare = [node for node in top.body if isinstance(node, ast.Import | ast.ImportFrom)]
        is_package = trees[name].path.name == "__init__.py"
        return set(imports(ast.Module(bare, []), name, is_package=is_package)) & trees.keys()

    loaded, ahead = set[str](), {"supervisor.daemon.life", "supervisor.daemon.serving"}
    while ahead:
        loaded |= ahead
        ahead = {target for name in ahead for target in at_top(name)} - loaded

    late = {(name, target) for name in loaded for target in GRAPH[name] - loaded}
    assert set() == {(name, target) for name, target in late if not _is_for_types(trees[name].tree, target)}


def _is_for_types(tree: ast.Module, target: str) -> bool:
    guarded = [node for node in tree.body if isinstance(node, ast.If)]
    return target in set(imports(ast.Module(list(guarded), []), "supervisor.x", is_package=False))
