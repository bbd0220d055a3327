"""Kernels that come back soon, and with an answer: the real daemon, real ipykernels, stock clients."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient

from tests.e2e.daemon import Scene, printed
from tests.waiting import DEADLINE, wait_for

WARM = ["prepared", "fork", "standby"]
AT_ONCE = "{ initial = 0.0, next = 0.0, jitter = 0.0 }"


def warm(scene: Scene, how: str, name: str = "a", **keys: str) -> str:
    return scene.ipykernel(name, warm_start=f'"{how}"', backoff=AT_ONCE, **keys)


def started(scene: Scene) -> None:
    """A daemon whose kernel runs as warm as it can, on a machine that may be slow."""
    scene.start("a")
    while scene.kernel("a")["begun"]["why"] == "its imports take long":
        before = scene.kernel("a")["generation"]
        scene.order("restart", "a", now=True)
        scene.wait_running("a", after=before)


def answer(client: BlockingKernelClient, code: str) -> dict[str, Any]:
    """The content of the reply to a cell, of a stock client without a time-out of its own."""
    return dict(client.execute_interactive(code, timeout=DEADLINE, output_hook=lambda m: None)["content"])


@pytest.mark.parametrize("how", WARM)
def test_a_cell_that_dies_with_its_kernel_is_answered_and_the_start_up_code_has_run(
    scene: Scene, how: str
) -> None:
    scene.write(warm(scene, how, startup='"x = 42"'))
    started(scene)
    if how == "standby":
        scene.wait_event("standby.ready")
    else:
        assert how == scene.kernel("a")["begun"]["how"], scene.log_end()
    with scene.client("a") as client:
        assert "42" == printed(client, "print(x)")

        died = answer(client, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")

        assert "KernelDied" == died["ename"]
        assert "killed by SIGKILL" in died["evalue"]
        run = scene.kernel("a")["generation"]
        assert (
            f"while executing In [1]; started again as run {run}; the start-up code has run" in died["evalue"]
        )
        assert "42" == printed(client, "print(x)")
    assert how == scene.kernel("a")["begun"]["how"]
    told = scene.events("kernel.died")[-1]
    assert (1, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)") == (
        told["executing"]["count"],
        told["executing"]["code"],
    )
    assert "os.kill(" not in scene.log.read_text()


@pytest.mark.parametrize("how", ["prepared", "fork"])
def test_a_segfault_leaves_its_stack_in_the_event_and_the_cell_an_error(scene: Scene, how: str) -> None:
    scene.write(warm(scene, how))
    scene.start("a")
    with scene.client("a") as client:
        died = answer(client, "def deep():\n    import ctypes; ctypes.string_at(0)\ndeep()")
    assert "killed by SIGSEGV" in died["evalue"]
    tail = scene.events("kernel.died")[-1]["output_tail"]
    assert "Fatal Python error: Segmentation fault" == tail[0]
    assert any(line.endswith("in deep") for line in tail), tail


@pytest.mark.parametrize("how", ["off", "prepared", "fork"])
def test_start_up_code_that_fails_is_a_failed_start_with_its_traceback(scene: Scene, how: str) -> None:
    (scene.directory / "startup.py").write_text("def f():\n    return 1 / 0\nf()\n")
    scene.write(warm(scene, how, startup_file='"startup.py"', max_restarts="1"))
    scene.start()

    wait_for(lambda: scene.events("kernel.failed"), "it is given up")

    died = scene.events("kernel.died")[-1]
    assert "startup" == died["cause"]
    assert "ZeroDivisionError: division by zero" == died["detail"]
    if how != "off":
        assert any('startup.py", line 2, in f' in line for line in died["output_tail"])
    assert [] == scene.events("kernel.ready")


def test_a_kernel_that_is_stopped_for_good_leaves_no_request_without_an_answer(scene: Scene) -> None:
    scene.write(warm(scene, "prepared"))
    scene.start("a")
    with scene.client("a") as client:
        asked = client.execute("import time; time.sleep(600)")
        queued = client.execute("1")
        wait_for(lambda: executes(scene), "it is executed")

        scene.order("stop", "a", now=True)

        replies = {}
        while len(replies) < 2:
            reply = client.get_shell_msg(timeout=DEADLINE)
            if (parent := reply["parent_header"]["msg_id"]) in (asked, queued):
                replies[parent] = reply["content"]["evalue"]
    assert [asked, queued] == list(replies)
    assert "it is not started again" in replies[asked]
    scene.order("start", "a")
    scene.wait_running("a", after=1)
    with scene.client("a") as client:
        assert "7" == printed(client, "print(3 + 4)")


def executes(scene: Scene, code: bytes = b"time.sleep") -> bool:
    return code in (scene.state_dir / "pending" / "a").read_bytes()


def test_what_a_kernel_executes_and_where_it_hangs_are_told(scene: Scene) -> None:
    silent = "{ interval = 0.2, misses = 2, action = 'report' }"
    scene.write(warm(scene, "prepared", probe=silent), scene.mini("b"))
    scene.start("a", "b")
    with scene.client("a") as client:
        # With the interpreter's lock held, as by code in C.
        client.execute("def deep():\n    import re; re.match('(a+)+$', 'a' * 40 + 'b')\ndeep()")
        told = scene.wait_event("kernel.unresponsive")

        status, stacks = scene.command("status", "a"), scene.command("stacks", "a")

    assert "a: executes In [1] for" in status.out
    assert "def deep()" in status.out
    assert "in deep" in stacks.out
    assert any("in deep" in line for line in told["stacks"])
    assert "in deep" not in scene.log.read_text()
    assert (1, "b tells no stacks") == (
        scene.command("stacks", "b").code,
        scene.command("stacks", "b").err[19:36],
    )


def test_what_is_no_ipykernel_is_started_cold_and_status_says_why(scene: Scene) -> None:
    scene.write(scene.mini("a", warm_start='"fork"'))
    scene.start("a")

    assert "cold" == scene.kernel("a")["begun"]["how"]
    assert "not an ipykernel" in scene.kernel("a")["begun"]["why"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("raise RuntimeError('no')", "import mine: RuntimeError: no"),
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
            "thread",
        ),
    ],
)
def test_what_cannot_be_forked_is_started_without_and_the_reason_told(
    scene: Scene, text: str, why: str
) -> None:
    scene.write(with_module(scene, text))
    scene.start("a")

    assert "prepared" == scene.kernel("a")["begun"]["how"]
    assert why in scene.kernel("a")["begun"]["why"]
    assert why in scene.events("zygote.unfit")[0]["reason"]


# From the second call on: a zygote tries once whether it may.
FAILING_FORK = """
import os
forks, fork = [], os.fork
def failing():
    forks.append(None)
    if len(forks) > 1:
        raise OSError(12, "no memory")
    return fork()
os.fork = failing
"""
STOPPING_FORK = """
import os, signal
forks, fork = [], os.fork
def stopping():
    forks.append(None)
    pid = fork()
    if pid and len(forks) > 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return pid
os.fork = stopping
"""


def with_module(scene: Scene, text: str, **keys: str) -> str:
    """A kernel that is forked from what has imported this."""
    (scene.directory / "mine.py").write_text(text)
    table = warm(scene, "fork", preload='["mine"]', **keys)
    return table.replace("env = {", f"env = {{ PYTHONPATH = '{scene.directory}',")


def test_where_no_memory_is_left_for_a_fork_a_kernel_is_started_without(scene: Scene) -> None:
    scene.write(with_module(scene, FAILING_FORK))

    started(scene)

    assert ("prepared", "no fork: Cannot allocate memory") == tuple(scene.kernel("a")["begun"].values())


def test_a_zygote_that_is_stopped_within_a_fork_keeps_no_kernel_away(scene: Scene) -> None:
    scene.write(with_module(scene, STOPPING_FORK))
    started(scene)
    assert "fork" == scene.kernel("a")["begun"]["how"]
    before = scene.kernel("a")
    with scene.client("a") as client:
        assert "7" == printed(client, "print(3 + 4)")

        os.kill(before["pid"], signal.SIGKILL)
        scene.wait_running("a", after=before["generation"])

        assert "7" == printed(client, "print(3 + 4)")
    assert "prepared" == scene.kernel("a")["begun"]["how"]
    assert "SIGKILL" == scene.events("kernel.died")[0]["signal"]
    assert [scene.kernel("a")["pid"]] == scene.leaders("a")


@pytest.mark.parametrize("how", ["prepared", "standby"])
def test_start_up_code_may_print_much(scene: Scene, how: str) -> None:
    much = json.dumps("print(('x' * 99 + chr(10)) * 100_000)")
    scene.write(warm(scene, how, startup=much, output="{ max_bytes = 1_000_000, backups = 1 }"))
    started(scene)
    if how == "standby":
        scene.wait_event("standby.ready")
    before = scene.kernel("a")["generation"]

    os.kill(scene.kernel("a")["pid"], signal.SIGKILL)
    scene.wait_running("a", after=before)

    assert how == scene.kernel("a")["begun"]["how"]
    assert "x" * 99 in scene.command("output", "a").out


def test_of_a_start_up_file_that_others_may_write_to_it_is_warned(scene: Scene) -> None:
    script = scene.directory / "startup.py"
    script.write_text("")
    script.chmod(0o666)
    scene.write(scene.mini("a", autostart="false", startup_file=f'"{script}"'))

    scene.start()

    wait_for(
        lambda: f"{script}: others may write to it, and so decide" in scene.log.read_text(), "it is told"
    )


def test_a_start_up_file_of_nobody_known_keeps_no_other_from_being_told(scene: Scene) -> None:
    script = scene.directory / "startup.py"
    script.touch()
    script.chmod(0o666)
    of_nobody = scene.mini("b", autostart="false", startup_file='"~no-such-user/startup.py"')
    scene.write(of_nobody, scene.mini("a", autostart="false", startup_file=f'"{script}"'))

    scene.start()

    wait_for(lambda: f"{script}: others may write to it" in scene.log.read_text(), "it is told")


def test_an_edited_module_is_new_in_the_next_run(scene: Scene) -> None:
    module = scene.directory / "mine.py"
    scene.write(with_module(scene, "value = 1"))
    started(scene)
    before = scene.kernel("a")["generation"]
    with scene.client("a") as client:
        assert "1" == printed(client, "import mine; print(mine.value)")
        module.write_text("value = 2000")

        os.kill(scene.kernel("a")["pid"], signal.SIGKILL)
        scene.wait_running("a", after=before)

        assert "2000" == printed(client, "import mine; print(mine.value)")
    assert str(module) in scene.events("zygote.retired")[0]["reason"]


def test_a_zygote_that_nobody_wants_any_more_ends(scene: Scene) -> None:
    def write(kernels: int, edition: str) -> None:
        tables = [warm(scene, "fork", name, preload='["json"]') for name in ("a", "b")[:kernels]]
        scene.write(*(text.replace("env = {", f"env = {{ EDITION = '{edition}',") for text in tables))
        scene.command("reload")

    write(2, "1")
    started(scene)
    scene.wait_running("b")
    (first,) = scene.helpers("zygote")

    write(1, "1")  # the other kernel has it still
    wait_for(lambda: not scene.kernel("b"), "b is forgotten")
    assert [first] == scene.helpers("zygote")
    before = scene.kernel("a")["generation"]
    write(1, "2")
    scene.wait_running("a", after=before)

    wait_for(lambda: first not in scene.helpers("zygote"), "it has ended")
    assert 1 == len(scene.helpers("zygote"))
    scene.order("stop", "a")
    wait_for(lambda: not scene.helpers("zygote"), "none is kept for what is stopped")


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_a_zygote_that_is_killed_or_stopped_takes_no_kernel_with_it_nor_keeps_one_away(
    scene: Scene, signum: int
) -> None:
    scene.write(warm(scene, "fork"))
    started(scene)
    zygote = scene.events("zygote.ready")[0]["zygote"]
    os.kill(zygote, signum)
    before = scene.kernel("a")["generation"]
    with scene.client("a") as client:
        assert "7" == printed(client, "print(3 + 4)")

        os.kill(scene.kernel("a")["pid"], signal.SIGKILL)
        scene.wait_running("a", after=before)

        assert "7" == printed(client, "print(3 + 4)")
    scene.stop()
    assert not Path(f"/proc/{zygote}").exists()


def test_forked_kernels_outlive_a_daemon_that_is_killed_and_its_zygote_does_not(scene: Scene) -> None:
    scene.write(warm(scene, "fork"))
    started(scene)
    before, zygote = scene.kernel("a"), scene.events("zygote.ready")[0]["zygote"]
    os.kill(zygote, signal.SIGSTOP)  # it does not notice by itself
    with scene.client("a") as client:
        printed(client, "x = 42; print(x)")

        scene.kill()
        scene.start("a")

        assert "42" == printed(client, "print(x)")
        assert before["pid"] == scene.kernel("a")["pid"]
        wait_for(lambda: not Path(f"/proc/{zygote}").exists(), "the zygote has ended")
        died = answer(client, "import os; os._exit(7)")
        assert "exited with code 7" in died["evalue"] or "ended" in died["evalue"]


def spares(scene: Scene) -> list[int]:
    """The processes that are parked."""
    return scene.helpers("standby")


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_a_broken_spare_keeps_no_kernel_away(scene: Scene, signum: int) -> None:
    scene.write(warm(scene, "standby"))
    started(scene)
    scene.wait_event("standby.ready")
    (spare,), before = spares(scene), scene.kernel("a")
    with scene.client("a") as client:
        os.kill(spare, signum)

        os.kill(before["pid"], signal.SIGKILL)
        scene.wait_running("a", after=before["generation"])

        assert "7" == printed(client, "print(3 + 4)")
    assert "standby" != scene.kernel("a")["begun"]["how"]
    wait_for(lambda: spare not in spares(scene), "the broken one has ended")


def test_a_spare_ends_with_a_daemon_that_is_killed_and_the_next_one_parks_another(scene: Scene) -> None:
    scene.write(warm(scene, "standby"))
    started(scene)
    scene.wait_event("standby.ready")
    before, (spare,) = scene.kernel("a"), spares(scene)
    os.kill(spare, signal.SIGSTOP)  # it does not notice by itself

    scene.kill()
    scene.start("a")

    scene.wait_event("standby.ready", 2)
    assert before["pid"] == scene.kernel("a")["pid"]
    assert spare not in spares(scene)
    assert 1 == len(spares(scene))
    scene.stop()
    wait_for(lambda: not spares(scene), "none is left")


def test_an_edit_that_ends_the_wish_ends_the_spare_and_leaves_the_kernel(scene: Scene) -> None:
    scene.write(warm(scene, "standby"))
    started(scene)
    scene.wait_event("standby.ready")
    before = scene.kernel("a")

    scene.write(warm(scene, "fork"))
    scene.command("reload")

    wait_for(lambda: not spares(scene), "none is left")
    assert before["pid"] == scene.kernel("a")["pid"]
    assert "not wished" == scene.wait_event("standby.dropped")["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fork", "standby"])
def test_a_daemon_that_is_killed_at_any_moment_of_a_restart_leaves_one_kernel(scene: Scene, how: str) -> None:
    scene.write(warm(scene, how, max_restarts="0", restart_window="0.1"))
    started(scene)
    for _ in range(int(os.environ.get("WARM_ROUNDS", "3"))):
        if how == "standby":
            wait_for(lambda: len(spares(scene)) == 1, "a spare is there")
        before = scene.kernel("a")
        os.kill(before["pid"], signal.SIGKILL)
        time.sleep(random.uniform(0, 0.15))  # the moment is what is tried

        scene.kill()
        scene.start("a")

        assert [scene.kernel("a")["pid"]] == scene.leaders("a")
        with scene.client("a") as client:
            assert "7" == printed(client, "print(3 + 4)")
    scene.stop()
    wait_for(lambda: not spares(scene), "none is left")
