"""Clients ask their manager whether the kernel lives: slow boots, restarts, lost requests, the end."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from supervisor.manager import KernelManager
from tests.manager.managing import Make
from tests.waiting import DEADLINE, wait_for

KINDS = {
    "blocking": "jupyter_client.blocking.client.BlockingKernelClient",
    "async": "jupyter_client.asynchronous.client.AsyncKernelClient",
    "threaded": "jupyter_client.threaded.ThreadedKernelClient",
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return KINDS[request.param]


@pytest.fixture
def running() -> Iterator[list[Any]]:
    clients: list[Any] = []
    yield clients
    for client in clients:
        client.stop_channels()


def lives(client: Any) -> bool:
    answer = client.is_alive()
    return bool(asyncio.run(answer) if inspect.isawaitable(answer) else answer)


def kill(manager: KernelManager) -> None:
    pid = manager.pid
    os.kill(pid or 0, signal.SIGKILL)
    wait_for(lambda: manager.pid not in (pid, None) or not manager.has_kernel)


def test_a_client_knows_of_life_what_its_manager_knows(make: Make, kind: str) -> None:
    manager = make(client_class=kind, settings={"max_restarts": 1, "backoff": {"initial": 0.5}})
    client = manager.client()
    manager.start_kernel(extra_arguments=["--deaf"])
    assert lives(client)
    pid = manager.pid
    os.kill(pid or 0, signal.SIGKILL)
    wait_for(lambda: manager.pid is None)
    assert lives(client)  # it is to come back
    wait_for(lambda: manager.pid)
    assert lives(client)

    kill(manager)
    assert not lives(client)  # given up
    manager.start_kernel()
    assert lives(client)
    manager.shutdown_kernel()
    assert not lives(client)


def test_a_client_waits_through_a_restart(make: Make, running: list[Any]) -> None:
    manager = make(settings={"backoff": {"initial": 1.5, "jitter": 0.0}})
    manager.start_kernel()
    running.append(manager.client())
    running[0].start_channels()
    os.kill(manager.pid or 0, signal.SIGKILL)
    wait_for(lambda: manager.pid is None)

    running[0].wait_for_ready(timeout=DEADLINE)


def test_a_request_that_died_with_its_kernel_is_told_until_the_next_one(
    make: Make, running: list[Any]
) -> None:
    manager = make()
    manager.start_kernel()
    running.append(client := manager.client())
    client.start_channels()
    client.wait_for_ready(timeout=DEADLINE)
    client.execute("1", reply=True, timeout=DEADLINE)
    kill(manager)
    assert lives(client)  # nothing is lost: it was answered

    client.wait_for_ready(timeout=DEADLINE)
    client.execute("import time; time.sleep(600)")
    assert lives(client)
    kill(manager)

    assert not lives(client)
    assert not lives(client)
    client.wait_for_ready(timeout=DEADLINE)
    assert lives(client)
    client.execute("import time; time.sleep(600)")
    kill(manager)
    client.execute("1")
    assert lives(client)


def test_the_client_of_a_session_that_was_given_is_attended_to_as_well(make: Make) -> None:
    from jupyter_client.session import Session

    manager = make(session=Session(key=b"of-mine", username="me"))
    manager.start_kernel()

    client = manager.client()

    assert (b"of-mine", b"of-mine", "me") == (manager.key, client.session.key, client.session.username)
    assert client.session.session != manager.session.session
    assert lives(client)
    assert lives(manager.client(session=Session(key=b"of-mine")))
