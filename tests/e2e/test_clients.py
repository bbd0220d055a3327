"""Stock clients, and kernels of other languages: they work on after a death at the same address."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.daemon import Scene, printed, table
from tests.waiting import DEADLINE

DENO = shutil.which("deno", path=str(Path(sys.executable).parent)) or shutil.which("deno")
BASH = (sys.executable, "-m", "bash_kernel", "-f", "{connection_file}")


def _lives_through_a_death(scene: Scene, argv: list[str], setting: str, showing: str) -> None:
    scene.write(table("a", argv=json.dumps(argv), stop_timeout="2.0"))
    scene.start("a")
    content = scene.connection_file("a").read_bytes()
    pid = scene.pids()["a"]
    with scene.client("a") as client:
        assert "42" == printed(client, setting)
        assert "42" == printed(client, showing)

        os.kill(pid, signal.SIGKILL)
        scene.wait_running("a", after=1)

        assert "42" == printed(client, setting)
    assert pid != scene.pids()["a"]
    assert content == scene.connection_file("a").read_bytes()
    assert "SIGKILL" == scene.wait_event("kernel.died", kernel="a")["signal"]
    assert 200 == scene.order("restart", "a").status
    assert 0 == scene.stop()
    assert [] == scene.leaders("a")


@pytest.mark.skipif(DENO is None, reason="deno is not installed")
def test_a_client_of_deno_works_on_after_its_death(scene: Scene) -> None:
    assert DENO is not None
    argv = [DENO, "jupyter", "--kernel", "--conn", "{connection_file}"]
    _lives_through_a_death(scene, argv, "globalThis.x = 42; console.log(x)", "console.log(x)")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_a_client_of_bash_kernel_works_on_after_its_death(scene: Scene) -> None:
    _lives_through_a_death(scene, list(BASH), "x=42; echo $x", "echo $x")


def test_an_ipc_kernel_is_back_at_its_sockets_and_its_client_works_on(scene: Scene) -> None:
    scene.write(scene.mini("a", transport='"ipc"', ip=f'"{scene.directory}/k"'))
    scene.start("a")
    with scene.client("a") as client:
        assert "1" == printed(client, "print(1)")

        os.kill(scene.pids()["a"], signal.SIGKILL)
        scene.wait_running("a", after=1)

        assert "2" == printed(client, "print(2)")


def test_jupyter_console_finds_the_kernel_by_its_name_before_and_after_a_death(scene: Scene) -> None:
    import pexpect

    scene.write(scene.ipykernel("analysis"))
    scene.start("analysis")
    scene.execute("analysis", "x = 40")

    def ask(code: str, answer: str) -> None:
        console = pexpect.spawn(
            sys.executable,
            ["-m", "jupyter_console", "--existing", "analysis", "--simple-prompt"],
            env=scene.environment(TERM="dumb"),
            cwd=str(scene.directory),
            timeout=DEADLINE,
            encoding="utf-8",
        )
        try:
            console.expect(r"In \[\d*\]: ")
            console.sendline(code)
            console.expect_exact(answer)
        finally:
            console.close(force=True)

    ask("print('the answer', x + 2)", "the answer 42")
    generation = scene.kernel("analysis")["generation"]
    os.kill(scene.pids()["analysis"], signal.SIGKILL)
    scene.wait_running("analysis", after=generation)
    ask("print('the sum', 20 + 3)", "the sum 23")


def test_exec_runs_code_prints_it_and_tells_an_exception_by_its_exit_code(scene: Scene) -> None:
    scene.write(scene.ipykernel("a"))
    scene.start("a")
    told = ("--config", str(scene.config))

    done = scene.command("exec", *told, "a", "x = 42; print(x)")
    assert (0, "42") == (done.code, done.out.strip())
    assert 1 == scene.command("exec", *told, "a", "1 / 0").code
