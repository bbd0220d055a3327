"""What comes before a daemon's life: whether another one lives it already."""

from pathlib import Path

import pytest

from supervisor.control import lookup
from supervisor.daemon import life
from supervisor.daemon.life import who_runs
from tests.cli.conftest import hanging
from tests.control.fake_steering import FakeDaemon, FakeSteering

__all__ = ["hanging"]


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
