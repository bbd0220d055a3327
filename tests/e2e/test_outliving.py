"""Kernels outlive the daemon: crashes of it at any moment, detaching, and what happens meanwhile."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.daemon import Scene, printed, send, table
from tests.waiting import DEADLINE, wait_for

DENO = shutil.which("deno", path=str(Path(sys.executable).parent)) or shutil.which("deno")
BASH = (sys.executable, "-m", "bash_kernel", "-f", "{connection_file}")

# How to set the variable and print it in one go, and how to print it, in each language.
PYTHON = ("x = 'mine {}'; print(x)", "print(x)")
SHELL = ("x='mine {}'; echo $x", "echo $x")
SCRIPT = ("globalThis.x = 'mine {}'; console.log(x)", "console.log(x)")


def _ten(scene: Scene) -> dict[str, tuple[str, str]]:
    """Ten kernels of four kinds, written into the file; how each is talked to."""
    tables = {f"ipy{n}": (scene.ipykernel(f"ipy{n}"), PYTHON) for n in range(3)}
    if shutil.which("bash"):
        tables["bash"] = (table("bash", argv=json.dumps(BASH)), SHELL)
    if DENO is not None:
        argv = json.dumps([DENO, "jupyter", "--kernel", "--conn", "{connection_file}"])
        tables["deno"] = (table("deno", argv=argv), SCRIPT)
    tables |= {f"mini{n}": (scene.mini(f"mini{n}"), PYTHON) for n in range(10 - len(tables))}
    scene.write(*(text for text, _ in tables.values()))
    return {name: language for name, (_, language) in tables.items()}


def _survive(scene: Scene, rounds: int) -> None:
    languages = _ten(scene)
    scene.start(*languages)
    with ExitStack() as stack:
        clients = {name: stack.enter_context(scene.client(name)) for name in languages}
        for name, (setting, _) in languages.items():
            assert f"mine {name}" == printed(clients[name], setting.format(name))
        pids = scene.pids()
        files = {name: scene.connection_file(name).read_bytes() for name in languages}
        for number in range(1, rounds + 1):
            scene.kill()
            # Nobody is there, and the kernels answer.
            assert "mine mini0" == printed(clients["mini0"], PYTHON[1])
            scene.start(*languages)

            assert pids == scene.pids()
            assert [pids[name] for name in sorted(pids)] == [
                pid for name in sorted(pids) for pid in _kernels(scene, name, pids)
            ]
            for name, (_, showing) in languages.items():
                assert f"mine {name}" == printed(clients[name], showing), (number, name)
            assert files == {name: scene.connection_file(name).read_bytes() for name in languages}
            assert len(languages) == len(scene.events("kernel.adopted")) / number
    assert [] == scene.events("kernel.died")
    assert len(languages) == len(scene.events("kernel.starting"))


def _kernels(scene: Scene, name: str, pids: dict[str, int]) -> list[int]:
    """The processes that could be the kernel; bash_kernel gives its bash a session of its own."""
    return [pids[name]] if name == "bash" else scene.leaders(name)


def test_ten_kernels_of_four_kinds_survive_the_sigkill_of_the_daemon_three_times(scene: Scene) -> None:
    _survive(scene, 3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kernels_of_four_kinds_survive_the_sigkill_of_the_daemon_ten_times(scene: Scene) -> None:
    _survive(scene, 10)


def test_after_detach_a_new_daemon_touches_only_what_was_edited_removed_or_added(scene: Scene) -> None:
    scene.write(*(scene.mini(name) for name in ("kept", "edited", "removed", "stopped")))
    daemon = scene.start("kept", "edited", "removed", "stopped")
    assert 200 == scene.order("stop", "stopped").status
    for name in ("kept", "edited"):
        scene.execute(name, "x = 1")
    pids = scene.pids()
    assert 0 == scene.command("detach", "--config", str(scene.config)).code
    assert 0 == daemon.wait(30)
    assert {pids[name] for name in ("kept", "edited", "removed")} == set(scene.leaders())

    scene.write(
        scene.mini("kept"),
        scene.mini("edited", env='{ A = "1" }'),
        scene.mini("stopped"),
        scene.mini("added"),
    )
    scene.start("kept", "added")
    scene.wait_running("edited", after=1)
    scene.wait_event("kernel.removed", kernel="removed")

    after = scene.pids()
    assert {"kept", "edited", "stopped", "added"} == after.keys()
    assert pids["kept"] == after["kept"]
    assert "True" == scene.run("kept", "print('x' in globals())")
    assert "False" == scene.run("edited", "print('x' in globals())")
    assert ["env"] == scene.wait_event("kernel.restarting", kernel="edited")["keys"]
    assert "stopped" == scene.kernel("stopped")["phase"], "it was stopped by order, and stays so"
    assert sorted(filter(None, after.values())) == sorted(scene.leaders())


def test_with_on_exit_keep_sigterm_leaves_the_kernels_to_the_next_daemon(scene: Scene) -> None:
    scene.write(scene.mini("a"), supervisor='on_exit = "keep"')
    scene.start("a")
    pids = scene.pids()

    assert 0 == scene.stop()

    assert [pids["a"]] == scene.leaders()
    scene.start("a")
    assert pids == scene.pids()


def test_sigusr2_detaches(scene: Scene) -> None:
    scene.write(scene.mini("a"))
    scene.start("a")
    pid = scene.pids()["a"]

    assert 0 == scene.stop(signal.SIGUSR2)

    assert [pid] == scene.leaders()
    assert 1 == len(scene.events("daemon.detached"))


def test_a_death_while_nobody_watched_is_told_at_the_next_start_and_handled(scene: Scene) -> None:
    scene.write(
        scene.mini("always"), scene.mini("never", restart='"never"'), scene.mini("well"), scene.mini("edited")
    )
    scene.start("always", "never", "well", "edited")
    scene.wait_recorded("always", "never", "well", "edited")
    pids = scene.pids()
    content = scene.connection_file("always").read_bytes()
    for name in ("always", "never", "edited"):
        scene.run(name, "import os; print(os.write(2, b'last words\\n'))")
    scene.kill()
    for name in ("always", "never", "edited"):
        os.kill(pids[name], signal.SIGKILL)
    wait_for(lambda: [pids["well"]] == scene.leaders(), "they are dead")

    scene.write(
        scene.mini("always"),
        scene.mini("never", restart='"never"'),
        scene.mini("well"),
        scene.mini("edited", env='{ A = "1" }'),
    )
    scene.start("always", "well", "edited")

    for name in ("always", "never", "edited"):
        died = scene.wait_event("kernel.died", kernel=name)
        assert (True, "unknown", pids[name]) == (died["while_unsupervised"], died["cause"], died["pid"])
        assert pids[name] == scene.kernel(name)["last_death"]["pid"]
        assert any("last words" in line for line in died["output_tail"])
        assert "exit_code" not in died
        assert "signal" not in died
    assert "failed" == scene.wait_phase("never", "failed")["phase"]
    assert pids["well"] == scene.pids()["well"]
    assert content == scene.connection_file("always").read_bytes()
    assert "1" == scene.run("edited", "import os; print(os.environ['A'])")


def test_children_of_a_kernel_that_died_unwatched_do_not_keep_it_from_coming_back(scene: Scene) -> None:
    scene.write(scene.mini("a"))
    scene.start("a")
    scene.wait_recorded("a")
    # A fork has the kernel's listening sockets, and with them its ports.
    scene.execute("a", "import os, time\nc = os.fork()\nif c == 0: time.sleep(600)")
    wait_for(lambda: len(scene.processes("a")) == 2, "it has a child")
    pid = scene.pids()["a"]
    (child,) = (process.pid for process in scene.processes("a") if process.pid != pid)
    scene.kill()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: [] == scene.leaders("a"), "it is dead")

    scene.start("a")

    assert [scene.pids()["a"]] == [process.pid for process in scene.processes("a")] != [child]
    assert ["unknown"] == [event["cause"] for event in scene.events("kernel.died", kernel="a")]


def test_a_child_that_left_a_kernel_that_died_unwatched_is_not_taken_for_the_kernel(scene: Scene) -> None:
    scene.write(scene.mini("a"))
    scene.start("a")
    scene.wait_recorded("a")
    sleeper = "[sys.executable, '-c', 'import time; time.sleep(600)']"
    scene.execute("a", f"import subprocess, sys; c = subprocess.Popen({sleeper}, start_new_session=True)")
    pid = scene.pids()["a"]
    (child,) = wait_for(lambda: [leader for leader in scene.leaders("a") if leader != pid], "it has a child")
    scene.kill()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: [child] == scene.leaders("a"), "it is dead")

    scene.start("a")

    assert [] == scene.events("kernel.adopted")
    assert scene.pids()["a"] not in (pid, child)
    assert child in scene.leaders("a"), "whoever leaves a kernel is not ended with it"


def test_the_death_of_an_adopted_kernel_is_known_as_far_as_the_system_tells_it(scene: Scene) -> None:
    scene.write(scene.mini("a"))
    scene.start("a")
    scene.wait_recorded("a")
    scene.kill()
    scene.start("a")
    with scene.client("a") as client:
        printed(client, "print()")
        send(client, "import os; os.write(2, b'last words\\n'); os._exit(7)")
        died = scene.wait_event("kernel.died", kernel="a")
        scene.wait_running("a", after=1)
        assert "2" == printed(client, "print(1 + 1)")

    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    told = (died["cause"], died.get("exit_code"))
    assert told == ("exited", 7) if release >= (6, 15) else told in {("exited", 7), ("unknown", None)}
    assert "last words" == died["output_tail"][-1]


def test_what_the_file_asks_of_kernels_that_are_being_adopted_is_not_lost(scene: Scene) -> None:
    off = {"heartbeat": '{ action = "off" }', "probe": '{ action = "off" }'}
    idle = {"on_config_change": '"when-idle"'}
    names = ("live", "idle", "removed")
    scene.write(scene.mini("live", **off), scene.mini("idle", **idle), scene.mini("removed"))
    scene.start(*names)
    scene.wait_recorded(*names)
    pids = scene.pids()
    scene.kill()

    live = {"heartbeat": "{ interval = 0.1, misses = 2 }", "probe": '{ action = "off" }'}
    scene.write(scene.mini("live", **live), scene.mini("idle", env='{ A = "1" }', **idle))
    scene.start("live")

    # Again until it is told: a kernel that stops before its checks have begun is another matter.
    wait_for(lambda: _told_when_stopped(scene, pids["live"]), "the edited heartbeat is in force")
    scene.wait_running("idle", after=1)
    # It heard that it is to exit; had it not, a signal would have ended it.
    assert 0 == scene.wait_event("kernel.stopped", kernel="removed")["exit_code"]
    assert [] == scene.events("kernel.died")


def _told_when_stopped(scene: Scene, pid: int) -> bool:
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: scene.events("kernel.unresponsive", kernel="live"), "it is told", deadline=2.0)
    except AssertionError:
        return False
    finally:
        os.kill(pid, signal.SIGCONT)
    return True


def test_a_kernel_that_hung_while_nobody_watched_is_told_unresponsive(scene: Scene) -> None:
    scene.write(scene.mini("a", heartbeat="{ interval = 0.1, misses = 2 }", probe='{ action = "off" }'))
    scene.start("a")
    scene.wait_recorded("a")
    pid = scene.pids()["a"]
    scene.kill()
    os.kill(pid, signal.SIGSTOP)

    scene.start()

    # As soon as its checks begin; until then nothing tells it from one that is well.
    wait_for(lambda: scene.events("kernel.unresponsive", kernel="a"), "it is told", deadline=5.0)
    os.kill(pid, signal.SIGCONT)
    scene.wait_event("kernel.responsive", kernel="a")
    assert pid == scene.pids()["a"]


def test_the_last_good_configuration_is_in_force_when_the_file_is_bad_at_the_next_start(scene: Scene) -> None:
    good = scene.write(scene.mini("a"))
    scene.start("a")
    scene.wait_recorded("a")
    pids = scene.pids()
    scene.config.write_text(f"{good}\nstop_timout = 1.0")
    scene.wait_event("config.rejected")
    scene.kill()

    scene.start("a")

    assert pids == scene.pids()
    config = scene.status()["config"]
    assert config["last_good_in_use"]
    scene.wait_event("config.loaded", file=str(scene.state_dir / "last-good.toml"))
    assert "stop_timout" in config["mistakes"][0]
    scene.config.write_text(good)
    wait_for(lambda: not scene.status()["config"]["last_good_in_use"], "the mended file is in force")
    assert pids == scene.pids()


def test_a_damaged_record_is_set_aside_and_its_kernel_lives_on(scene: Scene) -> None:
    scene.write(scene.mini("a"), scene.mini("b"))
    scene.start("a", "b")
    scene.wait_recorded("a", "b")
    pids = scene.pids()
    scene.kill()
    record = scene.state_dir / "kernels" / "a.json"
    record.write_bytes(record.read_bytes()[:40])

    scene.start("a", "b")

    assert pids == scene.pids()
    assert sorted(pids.values()) == sorted(scene.leaders())
    assert 1 == len(list(record.parent.glob("a.json.damaged-*")))


def _at_random(scene: Scene, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    names = ("a", "b", "c")
    scene.write(
        *(scene.mini(name, backoff="{ initial = 0.0, next = 0.0 }", max_restarts="0") for name in names)
    )
    for _ in range(rounds):
        daemon = scene.begin()
        time.sleep(chance.uniform(0.0, 0.7))  # the moment of the kill is what is random
        living = scene.leaders()
        if living and chance.random() < 0.5:
            _kill(chance.choice(living))
        daemon.kill()
        daemon.wait(30)
        runs = scene.processes()
        assert len(runs) == len({process.kernel for process in runs}), f"seed {seed}: {runs}"
    scene.start(*names)

    assert sorted(scene.pids().values()) == sorted(scene.leaders()), f"seed {seed}"
    assert [] == scene.doubles(), f"seed {seed}"
    assert 0 == scene.stop()
    assert [] == scene.processes(), f"seed {seed}"


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def test_killed_at_random_moments_it_never_has_two_processes_nor_an_orphan(scene: Scene) -> None:
    _at_random(scene, 15, random.randrange(1_000_000))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments_two_hundred_times_it_never_has_two_processes(scene: Scene) -> None:
    _at_random(scene, 200, random.randrange(1_000_000))


def test_a_connection_file_or_its_directory_that_is_removed_is_back_within_two_seconds(scene: Scene) -> None:
    scene.write(scene.mini("a"), scene.mini("b"))
    scene.start("a", "b")
    file, content = scene.connection_file("a"), scene.connection_file("a").read_bytes()
    scene.wait_recorded("a", "b")

    for number, remove in enumerate(
        (file.unlink, lambda: file.write_text("{}"), lambda: shutil.rmtree(file.parent))
    ):
        remove()
        wait_for(lambda: file.exists() and file.read_bytes() == content, "it is back", 2.0)
        scene.wait_event("kernel.restored", number + 1, kernel="a")
    wait_for(scene.connection_file("b").exists, "the other one too", 2.0)
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)

    assert scene.order("stop", "a").body["ok"]
    assert not file.exists()


def test_a_connection_file_that_cannot_be_written_is_told_and_written_once_it_can_be(scene: Scene) -> None:
    scene.write(scene.mini("a"))
    scene.start("a")
    file, content = scene.connection_file("a"), scene.connection_file("a").read_bytes()
    scene.wait_recorded("a")

    shutil.rmtree(file.parent)
    file.parent.write_text("in the way")
    wait_for(
        lambda: any("connection file of kernel a" in text for text in scene.status()["degraded"]),
        "it is told",
    )

    file.parent.unlink()
    wait_for(lambda: file.exists() and file.read_bytes() == content, "it is back")
    wait_for(lambda: not scene.status()["degraded"], "all is well")


@pytest.mark.parametrize("signum", [None, signal.SIGTERM])
def test_a_daemon_whose_state_directory_was_removed_leaves_the_kernels_to_the_one_that_was_started_then(
    scene: Scene, signum: int | None
) -> None:
    scene.write(scene.mini("a"), scene.mini("b"))
    first = scene.start("a", "b")
    scene.wait_recorded("a", "b")
    pids = scene.pids()

    first.send_signal(signal.SIGSTOP)  # it would lock it again
    scene.state_dir.rename(scene.directory / "removed")
    scene.start("a", "b")
    first.send_signal(signal.SIGCONT)
    if signum is not None:
        first.send_signal(signum)
    assert 0 == first.wait(DEADLINE), scene.log_end()

    assert pids == scene.pids()
    assert scene.answers()
    os.kill(pids["a"], signal.SIGKILL)
    scene.wait_running("a", after=1)
    assert [scene.pids()["a"]] == scene.leaders("a")


def test_a_state_directory_that_was_removed_is_locked_again(scene: Scene) -> None:
    scene.write(scene.mini("a"))
    first = scene.start("a")
    scene.state_dir.rename(scene.directory / "removed")
    wait_for((scene.state_dir / "lock").exists, "it is locked again")

    second = scene.command("run", str(scene.config))

    assert 1 == second.code
    assert f"a daemon runs already (pid {first.pid})" in second.err
