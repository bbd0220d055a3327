"""Kernels that do not answer, or are busy: what is told, what is done, what is left alone."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tests.e2e.daemon import Scene, printed, send
from tests.waiting import wait_for

QUICK = "{ interval = 0.2, misses = 3 }"
QUICK_RESTART = '{ interval = 0.2, misses = 3, action = "restart" }'
OFF = '{ action = "off" }'
SPIN = "open('busy', 'w').close()\nwhile True: pass"
# Of the C library, called with the GIL held.
HOLD_GIL = "import ctypes; open('busy', 'w').close(); ctypes.PyDLL(None).sleep(600)"


def test_a_stopped_process_is_told_unresponsive_by_default_and_left_alone_until_it_answers(
    scene: Scene,
) -> None:
    scene.write(scene.mini("a", heartbeat=QUICK, probe=OFF))
    scene.start("a")
    pid = scene.kernel("a")["pid"]

    os.kill(pid, signal.SIGSTOP)
    told = scene.wait_event("kernel.unresponsive", kernel="a")

    assert ("heartbeat", 3) == (told["check"], told["misses"])
    assert ("running", "unresponsive", pid) == _well(scene)
    os.kill(pid, signal.SIGCONT)
    scene.wait_event("kernel.responsive", kernel="a")
    assert ("running", "ok", pid) == _well(scene)


def _well(scene: Scene) -> tuple[object, ...]:
    return tuple(scene.kernel("a")[key] for key in ("phase", "health", "pid"))


def test_a_stopped_process_is_restarted_where_that_is_wished(scene: Scene) -> None:
    scene.write(scene.mini("a", heartbeat=QUICK_RESTART, probe=OFF))
    scene.start("a")
    pid = scene.kernel("a")["pid"]

    os.kill(pid, signal.SIGSTOP)
    scene.wait_running("a", after=1)

    assert 1 == len(scene.events("kernel.unresponsive", kernel="a"))
    assert "unresponsive" == scene.wait_event("kernel.died", kernel="a")["cause"]
    assert "unresponsive" == scene.kernel("a")["last_death"]["cause"]
    assert [scene.kernel("a")["pid"]] == scene.leaders("a") != [pid]


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_an_order_reaches_a_stopped_process_all_the_same(scene: Scene, verb: str) -> None:
    scene.write(scene.mini("a", stop_timeout="20.0"))
    scene.start("a")
    pid = scene.kernel("a")["pid"]
    os.kill(pid, signal.SIGSTOP)

    answer = scene.order(verb, "a")

    assert 200 == answer.status, answer.body
    assert pid not in scene.leaders("a")
    assert [] == scene.events("kernel.died", kernel="a")
    # It was let go on and then asked: had it not heard, a signal would have ended it.
    if verb == "stop":
        assert 0 == scene.wait_event("kernel.stopped", kernel="a")["exit_code"]


@pytest.mark.parametrize("verb", ["stop", "restart"])
@pytest.mark.parametrize("code", [SPIN, HOLD_GIL], ids=["python loop", "GIL held in C"])
def test_a_busy_ipykernel_is_never_restarted_by_the_checks_and_ends_when_ordered(
    scene: Scene, code: str, verb: str
) -> None:
    # The default actions; intervals so short that the checks would have struck.
    checks = {"heartbeat": "{ interval = 0.1, misses = 2 }", "probe": "{ interval = 0.1, misses = 3 }"}
    scene.write(scene.ipykernel("a", stop_timeout="1.0", cwd=f'"{scene.directory}"', **checks))
    scene.start("a")
    pid = scene.kernel("a")["pid"]
    with scene.client("a") as client:
        send(client, code)
        wait_for((scene.directory / "busy").exists, "it is busy")
        if code is HOLD_GIL:
            told = scene.wait_event("kernel.unresponsive", kernel="a")
            assert "probe" == told["check"]
        assert ("running", pid) == (scene.kernel("a")["phase"], scene.kernel("a")["pid"])

        assert 200 == scene.order(verb, "a").status

    assert pid not in scene.leaders("a")
    assert [] == scene.events("kernel.died", kernel="a")


def test_a_kernel_that_refuses_to_stop_delays_nobody_and_ends_by_sigkill(scene: Scene) -> None:
    stubborn = ("--ignore", "SIGTERM,SIGINT", "--ignore-shutdown")
    scene.write(scene.mini("deaf", *stubborn, stop_timeout="3.0"), scene.mini("b"))
    scene.start("deaf", "b")
    outcome: list[int] = []
    stopping = threading.Thread(target=lambda: outcome.append(scene.order("stop", "deaf").status))
    stopping.start()
    scene.wait_phase("deaf", "stopping")

    assert 200 == scene.order("restart", "b").status
    with scene.client("b") as client:
        assert "2" == printed(client, "print(1 + 1)")
    assert 0 == scene.command("logs", "-n", "5", "--config", str(scene.config)).code

    # All of that happened while it was being stopped.
    assert "stopping" == scene.kernel("deaf")["phase"]
    stopping.join(30)
    assert [200] == outcome
    assert "SIGKILL" == scene.wait_event("kernel.stopped", kernel="deaf")["signal"]
    assert [] == scene.leaders("deaf")
