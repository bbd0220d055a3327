"""The client of the door, as programs use it."""

from __future__ import annotations

import pytest

import supervisor
from tests.control.fake_steering import FakeDaemon, FakeSteering, view_of


def test_the_connection_file_of_a_kernel_is_the_one_of_its_whole_name(
    daemon: FakeDaemon, steering: FakeSteering
) -> None:
    steering.views["rob"] = view_of("rob", steering.tmp)

    assert steering.tmp / "kernel-rob.json" == supervisor.connection_file("rob", socket=str(daemon.path))
    with pytest.raises(LookupError, match="did you mean 'rob'"):
        supervisor.connection_file("ro", socket=str(daemon.path))
    with pytest.raises(ConnectionError, match="there is no such socket"):
        supervisor.connection_file("rob", socket="/nowhere")
