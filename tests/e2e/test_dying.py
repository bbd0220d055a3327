"""A kernel that ends without being asked: what is told, and what becomes of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from tests.e2e.daemon import MINI, Scene, printed, send, table
from tests.waiting import wait_for

AT_ONCE = "{ initial = 0.0, next = 0.0, jitter = 0.0 }"


class Watcher:
    """Reads a file again and again in a thread, and keeps what it saw."""

    def __init__(self, file: Path) -> None:
        self.seen: set[bytes | None] = set()
        self._file = file
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            try:
                self.seen.add(self._file.read_bytes())
            except FileNotFoundError:
                self.seen.add(None)
            self._over.wait(0.0005)


def test_a_killed_ipykernel_is_back_at_its_address_and_a_client_made_before_works_on(scene: Scene) -> None:
    scene.write(table("analysis", kernelspec='"python3"'))
    scene.start("analysis")
    before = scene.kernel("analysis")
    content = scene.connection_file("analysis").read_bytes()
    with scene.client("analysis") as client, Watcher(scene.connection_file("analysis")) as watcher:
        assert "42" == printed(client, "x = 42; print(x)")

        os.kill(before["pid"], signal.SIGKILL)
        scene.wait_running("analysis", after=before["generation"])

        assert "7" == printed(client, "print(3 + 4)")
        assert "False" == printed(client, "print('x' in dir())")
    after = scene.kernel("analysis")
    assert before["pid"] != after["pid"]
    assert {content} == watcher.seen
    assert ("SIGKILL", "killed", None) == tuple(
        after["last_death"][key] for key in ("signal", "cause", "exit_code")
    )
    died = scene.wait_event("kernel.died", kernel="analysis")
    assert ("SIGKILL", before["pid"]) == (died["signal"], died["pid"])
    assert 1 == len(scene.events("kernel.restarting", kernel="analysis"))


def test_the_connection_file_is_never_absent_nor_different_through_many_deaths(scene: Scene) -> None:
    scene.write(scene.mini("a", max_restarts="0", backoff=AT_ONCE))
    scene.start("a")
    content = scene.connection_file("a").read_bytes()
    mode = scene.connection_file("a").stat().st_mode & 0o777
    with Watcher(scene.connection_file("a")) as watcher:
        for generation in range(1, 11):
            os.kill(scene.kernel("a")["pid"], signal.SIGKILL)
            scene.wait_running("a", after=generation)

    assert {content} == watcher.seen
    assert 0o600 == mode


# What is executed, and the cause, the exit code and the signal that are told.
ENDINGS = [
    ("os._exit(7)", "exited", 7, None),
    ("os._exit(0)", "exited", 0, None),
    ("os.abort()", "crashed", None, "SIGABRT"),
    ("ctypes.string_at(0)", "crashed", None, "SIGSEGV"),
    ("os.kill(os.getpid(), 15)", "killed", None, "SIGTERM"),
]


def test_how_a_kernel_ended_and_its_last_words_are_in_the_event_and_in_status(scene: Scene) -> None:
    scene.write(scene.mini("a", max_restarts="0", backoff=AT_ONCE))
    scene.start("a")
    for number, (code, *expected) in enumerate(ENDINGS, 1):
        with scene.client("a") as client:
            send(client, f"import ctypes, os; os.write(2, b'last words {number}\\n'); {code}")
            scene.wait_running("a", after=number)

        died = scene.wait_event("kernel.died", number, kernel="a")
        death = scene.kernel("a")["last_death"]
        assert expected == [died["cause"], died.get("exit_code"), died.get("signal")]
        assert expected == [death["cause"], death["exit_code"], death["signal"]]
        assert f"last words {number}" in died["output_tail"][-1]
        assert died["output_tail"] == death["output_tail"]


@pytest.mark.parametrize(
    ("code", "exit_code"), [("exit()", 0), ("import os; os._exit(7)", 7)], ids=["exit", "os._exit"]
)
def test_an_ipykernel_that_ends_by_itself_tells_its_exit_code(
    scene: Scene, code: str, exit_code: int
) -> None:
    scene.write(scene.ipykernel("a", restart='"on-failure"'))
    scene.start("a")
    with scene.client("a") as client:
        send(client, code)
        died = scene.wait_event("kernel.died", kernel="a")

    assert ("exited", exit_code) == (died["cause"], died["exit_code"])
    # on-failure: wanted after a failure only
    scene.wait_phase("a", "running" if exit_code else "stopped")


def test_a_kernel_that_dies_after_each_start_is_given_up_after_growing_delays_and_reset_revives_it(
    scene: Scene,
) -> None:
    mended = scene.directory / "mended"
    backoff = "{ initial = 0.0, next = 0.05, factor = 3.0, jitter = 0.0 }"
    options = ("--exit-after", "0.2", "--exit-code", "3", "--exit-unless", str(mended))
    scene.write(scene.mini("a", *options, backoff=backoff, max_restarts="3"), scene.mini("b"))
    scene.start("b")

    failed = scene.wait_event("kernel.failed", kernel="a")

    assert [0.0, 0.05, 0.15] == [e["delay"] for e in scene.events("kernel.restarting", kernel="a")]
    assert 4 == len(scene.events("kernel.died", kernel="a", exit_code=3))
    assert "died 4 times within 120 s" in failed["reason"]
    view = scene.kernel("a")
    assert ("failed", None, failed["reason"]) == (view["phase"], view["pid"], view["reason"])
    wait_for(lambda: not scene.connection_file("a").exists(), "the connection file is gone")
    assert "running" == scene.kernel("b")["phase"]

    mended.touch()
    assert 200 == scene.order("reset", "a").status

    assert "running" == scene.kernel("a")["phase"]
    assert 1 == len(scene.events("kernel.failed", kernel="a"))


def test_what_is_missing_fails_that_kernel_once_with_the_reason_and_no_other(scene: Scene) -> None:
    spec = scene.directory / ".local/share/jupyter/kernels/gone/kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": [sys.executable, str(MINI), "-f", "{connection_file}"]}))
    scene.write(
        scene.mini("well"),
        table("program", argv='["/nowhere/python", "{connection_file}"]'),
        table("directory", argv=json.dumps(["true", "{connection_file}"]), cwd='"/nowhere/at/all"'),
        table("unknown", kernelspec='"no-such-kernel"'),
        table("gone", kernelspec='"gone"'),
    )
    scene.start("well", "gone")
    spec.unlink()
    os.kill(scene.kernel("gone")["pid"], signal.SIGKILL)

    words = {
        "program": "/nowhere/python",
        "directory": "/nowhere/at/all",
        "unknown": "no-such-kernel",
        "gone": "gone",
    }
    for name, word in words.items():
        reason = scene.wait_phase(name, "failed")["reason"]
        assert word in reason
        assert reason == scene.wait_event("kernel.failed", kernel=name)["reason"]
    # Another kernel's whole restart goes by; had they been tried again, it would show.
    assert 200 == scene.order("restart", "well").status
    for name in words:
        assert 1 == len(scene.events("kernel.failed", kernel=name))
        assert 1 == len(scene.events("kernel.died", kernel=name, cause="not-found"))


def test_children_in_the_group_end_with_the_kernel_and_one_that_left_is_named(scene: Scene) -> None:
    scene.write(scene.mini("a", max_restarts="0", backoff=AT_ONCE))
    scene.start("a")
    code = (
        "import subprocess as s, sys; c = [sys.executable, '-c', 'import time; time.sleep(600)'];"
        "print(s.Popen(c).pid, s.Popen(c, start_new_session=True).pid)"
    )
    endings = {
        "death": lambda: os.kill(scene.kernel("a")["pid"], signal.SIGKILL),
        "restart": lambda: scene.order("restart", "a"),
        "stop": lambda: scene.order("stop", "a"),
    }
    for number, (how, end) in enumerate(endings.items(), 1):
        with scene.client("a") as client:
            member, escapee = map(int, _once(client, code).split())

        end()

        escaped = scene.wait_event("kernel.escaped", number, kernel="a")
        assert ("warning", number, [escapee]) == (escaped["level"], escaped["generation"], escaped["pids"]), (
            how
        )
        assert member not in [process.pid for process in scene.processes("a")], how
        os.kill(escapee, signal.SIGKILL)
        if how != "stop":
            scene.wait_running("a", after=number)


def _once(client, code: str) -> str:  # type: ignore[no-untyped-def]
    """As printed, after the client is known to be connected, so that nothing is repeated."""
    printed(client, "print()")
    return printed(client, code)


def test_a_start_that_never_becomes_ready_is_a_death_by_start_timeout(scene: Scene) -> None:
    scene.write(
        scene.mini("a", "--deaf", start_timeout="0.3", max_restarts="1", backoff=AT_ONCE), scene.mini("b")
    )
    scene.start("b")

    scene.wait_phase("a", "failed")

    scene.wait_event("kernel.failed", kernel="a")
    assert ["start-timeout"] * 2 == [event["cause"] for event in scene.events("kernel.died", kernel="a")]
    assert [] == scene.leaders("a")


def test_a_kernel_whose_port_a_stranger_took_is_told_so_and_keeps_its_address(scene: Scene) -> None:
    import socket

    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        scene.write(
            scene.mini(
                "a",
                ports=f"{{ shell = {port} }}",
                backoff="{ initial = 0.05, next = 0.05 }",
                max_restarts="1",
            )
        )
        scene.start()
        died = scene.wait_event("kernel.died", 4, kernel="a")

        assert "port-taken" == died["cause"]
        assert f"port {port} on 127.0.0.1 is in use by another program: pid {os.getpid()} (" in died["detail"]

    scene.wait_running("a")
    assert port == json.loads(scene.connection_file("a").read_text())["shell_port"]
