"""A stock client stays at one address while its kernel goes from node to node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.nodes import client, direct_client, value_of
from tests.machines.test_relay import Relay, free_ports
from tests.slurm.cluster import NODES, Cluster
from tests.slurm.jobs import Submitted
from tests.waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]
CODE, WHOLE = "for i in range(20): print(i)", "".join(f"{i}\n" for i in range(20))


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    made = Relay(tmp_path / "relay")
    yield made
    made.close()


def test_a_client_that_was_there_before_the_job_began_works_on_wherever_it_goes(
    cluster: Cluster, relay: Relay
) -> None:
    local = free_ports()
    relay.lead("a", local)
    with client(local) as asking:
        asking.execute("early = 'sent while it was queued'")
        for number, node in enumerate((*NODES, NODES[0])):
            job = Submitted(cluster, f"moves-{number}", f"--nodelist={node}")
            relay.lead("a", local, job.target())

            code = "import os; print(os.environ['SLURMD_NODENAME'], globals().get('early'))"
            early = "sent while it was queued" if number == 0 else None
            assert f"{node} {early}\n" == value_of(asking, code)
            relay.lead("a", local)
            job.cancel()
            job.ended()


def test_200_moves_between_two_nodes_and_no_output_is_lost(cluster: Cluster, relay: Relay) -> None:
    local = free_ports()
    jobs = [Submitted(cluster, f"at-{node}", f"--nodelist={node}") for node in NODES]
    targets = [job.target() for job in jobs]
    for target in targets:
        with direct_client(target) as asking:
            value_of(asking, "pass")
    relay.lead("a", local, targets[0])
    with client(local) as asking:
        lost = []
        for move in range(200):
            relay.lead("a", local, targets[move % 2])
            if value_of(asking, CODE) != WHOLE:
                lost.append(move)

        assert [] == lost
    for job in jobs:
        job.cancel()
    wait_for(lambda: all(job.file("end.json") for job in jobs))
