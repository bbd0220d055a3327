"""What every test has: a home of its own, in which nothing of the user's is found and nothing is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import hypothesis
import pytest

from tests.homes import FOREIGN

OF_THE_USER = dict(os.environ)

# A shell that runs the tests in the background has SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes says nothing on a busy machine.
SHARED = hypothesis.HealthCheck.function_scoped_fixture
hypothesis.settings.register_profile("any machine", deadline=None, suppress_health_check=[SHARED])
hypothesis.settings.load_profile("any machine")


def move_in(home: Path, patch: pytest.MonkeyPatch) -> None:
    """Have this process and its children find ``home`` in place of the user's."""
    for variable in os.environ:
        if variable.startswith(FOREIGN):
            patch.delenv(variable)
    patch.setenv("HOME", str(home))
    patch.chdir(home)


@pytest.fixture(scope="session", autouse=True)
def home_of_what_tests_share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For fixtures that live longer than a test."""
    made = tmp_path_factory.mktemp("home")
    move_in(made, pytest.MonkeyPatch())
    return made


@pytest.fixture(autouse=True)
def home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path | None:
    """An empty home, which all places that are not named in a test are below."""
    if request.node.get_closest_marker("systemd"):
        # A machine of its own, which is built with the user's cache and pip.
        for variable, value in OF_THE_USER.items():
            monkeypatch.setenv(variable, value)
        return None
    made = tmp_path_factory.mktemp("home")
    move_in(made, monkeypatch)
    return made


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that others get to: pytest closes its own again and again."""
    made = Path(mkdtemp(prefix="ks-open-"))
    made.chmod(0o755)
    yield made
    rmtree(made)
