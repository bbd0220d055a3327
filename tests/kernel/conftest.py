"""An address, a fake kernel at it, and somebody to talk to a kernel there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.kernel.connection import Connection
from tests.kernel.kernels import (
    FakeKernel,
    Talk,
    connection,
)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Connection]:
    kept = connection(tmp_path)
    yield kept
    kept.close()


@pytest.fixture
def fake(at: Connection) -> FakeKernel:
    assert at.address is not None
    return FakeKernel(at.address)


@pytest.fixture
def talk(at: Connection) -> Iterator[Talk]:
    both = Talk(at)
    yield both
    both.channel.close()
    if both.client.channels_running:
        both.client.stop_channels()
