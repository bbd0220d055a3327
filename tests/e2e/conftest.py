"""A scene for each scenario, and for those that share one; nothing of it is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Scene


def _acted(directory: Path) -> Iterator[Scene]:
    made = Scene(directory)
    try:
        yield made
    finally:
        made.clean_up()
    # Of every scenario, whatever it is about.
    assert [] == made.doubles(), "two processes of one kernel lived at the same time"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    yield from _acted(tmp_path)


@pytest.fixture(scope="module")
def shared_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    yield from _acted(tmp_path_factory.mktemp("scene"))
