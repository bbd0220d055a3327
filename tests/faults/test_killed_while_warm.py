"""SIGKILL of the daemon at every step of a fork, a parking and a promotion: one kernel, and every answer."""

from __future__ import annotations

import os
import signal
from functools import partial
from queue import Empty

import pytest
from jupyter_client import BlockingKernelClient

from tests.e2e.daemon import Scene, printed
from tests.e2e.test_warm import executes, warm
from tests.faults.conftest import FaultyScene
from tests.waiting import DEADLINE, wait_for

# Further rounds: make test-warm.
ROUNDS = int(os.environ.get("WARM_ROUNDS", "1"))
BOTH = ("before", "after")
RECORDED = [
    "record.intent",
    "record.intent.rename",
    "record.identity",
    "record.identity.rename",
    "record.ready",
]
STEPS = [
    *((how, point, when) for how in ("fork", "standby") for point in RECORDED for when in BOTH),
    *(("fork", point, when) for point in ("fork", "go") for when in BOTH),
    *(("standby", point, when) for point in ("park", "promote", "go") for when in BOTH),
]


def is_warm(scene: Scene, how: str) -> bool:
    """Whether what the next run is made of is there."""
    awaited = {"fork": "zygote.ready", "standby": "standby.ready"}[how]
    told = [event["event"] for event in scene.events()]
    return awaited in told[len(told) - told[::-1].index("daemon.started") :]


def replies_to(client: BlockingKernelClient, asked: str) -> list[str]:
    """The errors that a cell is answered with; for a while longer, as the first shall be the only one."""
    found: list[str] = []
    patience = float(DEADLINE)
    while True:
        try:
            reply = client.get_shell_msg(timeout=patience)
        except Empty:
            return found
        if reply["parent_header"]["msg_id"] == asked:
            found.append(reply["content"]["ename"])
            patience = 0.5


@pytest.mark.slow
@pytest.mark.timeout(60 + 60 * ROUNDS)
@pytest.mark.parametrize(("how", "point", "when"), STEPS, ids=[" ".join(step) for step in STEPS])
def test_a_daemon_killed_on_the_way_is_followed_by_one_with_one_kernel_and_no_answer_is_lost(
    scene: Scene, faults: FaultyScene, how: str, point: str, when: str
) -> None:
    scene.write(warm(scene, how, max_restarts="0", restart_window="0.1"))
    faults.start("a")
    for number in range(ROUNDS):
        wait_for(lambda: is_warm(scene, how), lambda: f"what the next run is made of; {scene.log_end()}")
        with scene.client("a") as client:
            # What was answered stays on record for a while longer.
            code = f"import time; time.sleep(600 + {number})"
            asked = client.execute(code)
            wait_for(partial(executes, scene, code.encode()), "it is executed")
            faults.set(point, when, kill=True)
            os.kill(scene.kernel("a")["pid"], signal.SIGKILL)
            faults.wait_dead()
            faults.lift()

            faults.start("a")

            assert [scene.kernel("a")["pid"]] == scene.leaders("a")
            assert ["KernelDied"] == replies_to(client, asked)
            assert "7" == printed(client, "print(3 + 4)")
        assert number + 1 == len(faults.struck())
    scene.stop()
    assert [] == scene.processes()
    wait_for(lambda: not scene.helpers(), "no helper is left")
