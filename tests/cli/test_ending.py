"""The verbs that end the daemon: detach and shutdown."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from supervisor.cli.program import main
from tests.cli.tools import Cli, begin, command, environment, read_until
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.waiting import wait_for


@pytest.mark.parametrize("verb", ["detach", "shutdown"])
def test_a_daemon_that_hangs_is_not_told_to_end_whenever_it_goes_on(
    daemon: FakeDaemon,
    steering: FakeSteering,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    monkeypatch.setattr("supervisor.cli.ending.QUICK_TIMEOUT", 0.2)
    hold, held = threading.Event(), threading.Event()

    def hang() -> None:  # as a process that is stopped
        held.set()
        hold.wait(30)

    ended = threading.Thread(target=lambda: daemon.call(hang))
    ended.start()
    assert held.wait(30)

    assert 3 == main([verb, "--socket", str(daemon.path)])
    hold.set()
    ended.join()
    assert "the daemon does not answer; tried:" in capsys.readouterr().err
    assert 0 == main(["status", "--socket", str(daemon.path)])
    assert [] == steering.ended


def test_detach_and_shutdown_may_be_left_alone(cli: Cli, steering: FakeSteering) -> None:
    assert (0, "the daemon is on its way out\n", "") == cli("detach", "--no-wait")
    assert 0 == cli("shutdown", "--now", "--no-wait").code
    assert ["detach", "shutdown now"] == steering.ended


def test_shutdown_waits_until_the_daemon_is_gone(tmp_path: Path) -> None:
    script = (
        "import sys, asyncio, pathlib\n"
        "from tests.control.fake_steering import FakeSteering\n"
        "from supervisor.control.door import Door\n"
        "async def main():\n"
        "    steering = FakeSteering(pathlib.Path(sys.argv[1]))\n"
        "    door = Door(steering, pathlib.Path(sys.argv[1]) / 's')\n"
        "    await door.start(); print('open', flush=True)\n"
        "    while not steering.ended: await asyncio.sleep(0.01)\n"
        "    await door.close()\n"
        "    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)\n"
        "asyncio.run(main())\n"
    )
    other = subprocess.Popen(
        [*command()[:1], "-c", script, str(tmp_path)],
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    read_until(other.stdout, "open")
    process = begin(tmp_path, "shutdown", "--socket", str(tmp_path / "s"))
    wait_for(lambda: not (tmp_path / "s").exists())
    assert process.poll() is None, "the socket has gone, the daemon has not"
    other.communicate("\n", timeout=30)
    out, _ = process.communicate(timeout=30)

    assert (0, "all kernels are stopped, the daemon has exited\n") == (process.returncode, out)
