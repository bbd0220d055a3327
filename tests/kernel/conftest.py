"""An address, a fake kernel at it, and somebody to talk to a kernel there; hosts of kernels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from supervisor.kernel.connection import Connection
from tests.kernel.hosting import Hosting
from tests.kernel.kernels import (
    FakeKernel,
    Talk,
    connection,
)
from tests.process.conftest import sleeper

__all__ = ["sleeper"]


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


@pytest.fixture
async def hosting(tmp_path: Path) -> AsyncIterator[Hosting]:
    made = Hosting(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def next_host(tmp_path: Path) -> AsyncIterator[Hosting]:
    """That of the next daemon, in the same directories."""
    made = Hosting(tmp_path)
    yield made
    await made.close()
