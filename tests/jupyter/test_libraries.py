"""Programs without a page: the client libraries of editors and agents."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemon import wait_for
from tests.jupyter.lab import TOKEN, Server

NODE_MODULES = Path(sys.prefix) / "node_modules"


@pytest.fixture(scope="module", autouse=True)
def _kernelspecs(lab: Server) -> None:
    lab.command("jupyter", "kernelspecs", "--user")


def program(lab: Server, text: str, *words: str) -> str:
    """What a program prints that runs in the environment of Jupyter."""
    done = subprocess.run(
        [sys.executable, "-c", text, *words],
        cwd=lab.root,
        env=lab.environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def kill_when_busy(lab: Server, name: str) -> Callable[[], float]:
    """Kill the kernel as soon as its cell runs; a function that tells when that was."""
    killed: list[float] = []

    def work() -> None:
        wait_for((lab.root / "in-a-cell").exists, "the cell runs")
        os.kill(lab.scene.kernel(name)["pid"], signal.SIGKILL)
        killed.append(time.time())
        (lab.root / "in-a-cell").unlink()

    thread = threading.Thread(target=work)
    thread.start()

    def instant() -> float:
        thread.join()
        return killed[0]

    return instant


SLEEP = "import pathlib, time\npathlib.Path({!r}).touch()\ntime.sleep(60)"


def test_jupyter_kernel_client_reaches_a_kernel_by_id_and_by_name(lab: Server) -> None:
    lab.scene.execute("robot", "m = 8")
    before = lab.scene.kernel("robot")["generation"]
    text = """
import sys
from jupyter_kernel_client import JupyterKernelClient as Client
url, token, id_ = sys.argv[1:]
def said(client, code):
    return "".join(o.get("text", o.get("ename", "")) for o in client.execute(code)["outputs"]).strip()
one = Client(server_url=url, token=token, kernel_id=id_); one.start(); print(said(one, "print(m)"))
one.restart(); print(said(one, "print('m' in globals())")); one.stop()
two = Client(server_url=url, token=token); two.start(name="robot"); print(two.id == id_); said(two, "n = 1")
two.stop(shutdown_kernel=True)
three = Client(server_url=url, token=token, kernel_id=id_); three.start(); print(said(three, "print(n)"))
three.stop()
"""

    assert "8\nFalse\nTrue\n1" == program(lab, text, lab.url, TOKEN, lab.scene.kernel("robot")["id"])
    assert before + 1 == lab.scene.kernel("robot")["generation"]


def test_a_kernel_that_is_killed_in_a_cell_of_jupyter_kernel_client_is_an_error(
    lab: Server, record_property: Callable[[str, object], None]
) -> None:
    killed = kill_when_busy(lab, "robot")
    text = """
import sys, time
from jupyter_kernel_client import JupyterKernelClient as Client
client = Client(server_url=sys.argv[1], token=sys.argv[2], kernel_id=sys.argv[3]); client.start()
answer = client.execute(sys.argv[4], timeout=60)
print(answer["status"], *(o.get("ename") for o in answer["outputs"]), time.time())
client.stop()
"""
    code = SLEEP.format(str(lab.root / "in-a-cell"))

    told, name, at = program(lab, text, lab.url, TOKEN, lab.scene.kernel("robot")["id"], code).split()

    assert ("error", "KernelDied") == (told, name)
    record_property("seconds", float(at) - killed())
    lab.scene.wait_running("robot")


@pytest.mark.skipif(
    not NODE_MODULES.exists() or not shutil.which("node"), reason="node, or its packages, are missing"
)
def test_the_client_library_of_vs_code_does_all_of_its_work(
    lab: Server, record_property: Callable[[str, object], None]
) -> None:
    kernel = lab.scene.kernel("robot")
    done = subprocess.run(
        [
            "node",
            str(Path(__file__).with_name("services.mjs")),
            lab.url,
            TOKEN,
            "robot",
            str(lab.root / "in-a-cell"),
        ],
        cwd=lab.root,
        env={**lab.environment(), "NODE_MODULES": str(NODE_MODULES)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    told = json.loads(done.stdout.strip().splitlines()[-1])

    assert "robot" in told["specs"]
    assert "robot" in told["sessions"]
    assert f"{kernel['pid']} ok" == told["execute"]
    assert "KeyboardInterrupt error" == told["interrupted"]
    record_property("interrupted", told["interrupt_ms"] / 1000)
    assert "name? hello Ada" == told["stdin"]
    assert [0, 255, 128] == told["buffer"]
    assert "KernelDied error" == told["killed"]
    record_property("killed", told["killed_ms"] / 1000)
    assert "alive ok" == told["goes_on"]
    assert "False ok" == told["restarted"]
    assert kernel["generation"] + 2 == lab.scene.kernel("robot")["generation"]
    assert "running" == lab.scene.kernel("robot")["phase"]
