"""What an edit does to the kernels: only what it is about, and nothing if it has a mistake."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemon import Scene, send
from tests.waiting import wait_for

NAMES = tuple("abcdefgh")


@pytest.fixture
def eight(scene: Scene) -> Scene:
    """Eight kernels, each with a variable."""
    scene.write(*(scene.mini(name) for name in NAMES), supervisor="max_concurrent_starts = 8")
    scene.start(*NAMES)
    for name in NAMES:
        assert name == scene.run(name, f"x = {name!r}; print(x)")
    return scene


def _edit(scene: Scene, supervisor: str = "", **keys: str) -> None:
    """Edit keys of the kernel d only, and have them loaded."""
    loaded = len(scene.events("config.loaded"))
    kernels = [scene.mini(name, **(keys if name == "d" else {})) for name in NAMES]
    scene.write(*kernels, supervisor=f"max_concurrent_starts = 8\n{supervisor}")
    scene.wait_event("config.loaded", loaded + 1)


def _variables(scene: Scene, *names: str) -> dict[str, str]:
    return {name: scene.run(name, "print(globals().get('x', ''))") for name in names}


def test_of_eight_kernels_an_edit_touches_the_edited_one_and_only_by_a_restart_key(eight: Scene) -> None:
    pids = eight.pids()
    all_kept = dict(zip(NAMES, NAMES, strict=True))
    others = tuple(name for name in NAMES if name != "d")

    for keys in ({"max_restarts": "9"}, {"max_restarts": "9", "autostart": "false"}):
        _edit(eight, **keys)
        assert pids == eight.pids(), keys
    _edit(eight, supervisor='socket = "elsewhere.sock"')
    assert pids == eight.pids()
    assert all_kept == _variables(eight, *NAMES)
    assert "socket: takes effect when the daemon is started anew" in eight.log_end()

    _edit(eight, env='{ THREADS = "2" }')
    eight.wait_running("d", after=1)
    restarting = eight.wait_event("kernel.restarting", kernel="d")
    assert (["env"], "edited") == (restarting["keys"], restarting["reason"])
    assert {name: pids[name] for name in others} == {name: eight.pids()[name] for name in others}
    assert all_kept | {"d": ""} == _variables(eight, *NAMES)
    assert "2" == eight.run("d", "import os; print(os.environ['THREADS'])")


BAD: dict[str, tuple[Callable[[str], str], list[str]]] = {
    "syntax error": (lambda text: f"{text}\nkernels = = 1", ["line"]),
    "unknown key": (lambda text: f"{text}\nstop_timout = 1.0", ["stop_timout"]),
    "wrong type": (lambda text: f"{text}\nstop_timeout = 'long'", ["stop_timeout"]),
    "duplicate": (lambda text: f"{text}\n{text[text.index('[kernels.b]') :]}", ["declared twice"]),
    "two mistakes": (
        lambda text: f"{text}\nstop_timout = 1.0\nmax_restarts = -1",
        ["stop_timout", "max_restarts"],
    ),
}


def _become_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _grow(file: Path) -> None:
    with file.open("ab") as opened:
        opened.write(b"\n#")
        opened.truncate(50 * 1024 * 1024)


STATES: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (Path.unlink, "no such file"),
    "a directory": (_become_directory, "is a directory"),
    "unreadable": (lambda file: file.chmod(0o000), "permission denied"),
    "empty": (lambda file: file.write_text(""), "no kernel is declared"),
    "50 MB": (_grow, "larger than"),
    "invalid UTF-8": (lambda file: file.write_bytes(file.read_bytes() + b"# \xff\xfe\n"), "not UTF-8"),
    "half": (lambda file: file.write_text(file.read_text()[: file.read_text().rindex("]") - 9]), "line"),
}


@pytest.fixture(scope="module")
def running(shared_scene: Scene) -> Scene:
    shared_scene.write(shared_scene.mini("a"), shared_scene.mini("b"))
    # Without root's right to read what may not be read.
    shared_scene.start("a", "b", weak=True)
    return shared_scene


@pytest.mark.parametrize("mistake", BAD)
def test_a_bad_edit_restarts_nothing_and_tells_each_mistake_and_the_mended_one_is_applied_once(
    running: Scene, mistake: str
) -> None:
    spoil, words = BAD[mistake]
    good, pids, generation = running.config.read_text(), running.pids(), running.kernel("b")["generation"]
    told, loaded = (len(running.events(name)) for name in ("config.rejected", "config.loaded"))

    running.config.write_text(spoil(good))
    rejected = running.wait_event("config.rejected", told + 1)

    assert len(words) == len(rejected["mistakes"])
    assert all(word in line for word, line in zip(words, rejected["mistakes"], strict=True))
    reloaded = running.command("reload", "--config", str(running.config), "--socket", str(running.socket))
    assert (78, rejected["mistakes"]) == (reloaded.code, reloaded.err.splitlines())
    config = running.status()["config"]
    assert rejected["mistakes"] == config["mistakes"]
    assert config["ahead_since"] is not None
    assert pids == running.pids()
    assert told + 1 == len(running.events("config.rejected"))

    running.write(running.mini("a"), running.mini("b", env=f'{{ A = "{mistake}" }}'))
    running.wait_running("b", after=generation)
    assert 0 == running.command("reload", "--config", str(running.config)).code
    assert loaded + 1 == len(running.events("config.loaded"))
    config = running.status()["config"]
    assert (pids["a"], None, []) == (running.pids()["a"], config["ahead_since"], config["mistakes"])
    assert generation + 1 == running.kernel("b")["generation"]


@pytest.mark.parametrize("state", STATES)
def test_a_file_that_is_no_configuration_any_more_is_rejected_and_no_kernel_touched(
    running: Scene, state: str
) -> None:
    spoil, word = STATES[state]
    good, pids = running.config.read_text(), running.pids()
    rejected, loaded = (len(running.events(name)) for name in ("config.rejected", "config.loaded"))

    spoil(running.config)
    event = running.wait_event("config.rejected", rejected + 1)

    assert any(word in line for line in event["mistakes"]), event["mistakes"]
    assert all(line.startswith(f"{running.config}: ") for line in event["mistakes"])
    assert pids == running.pids()
    if running.config.is_dir():
        running.config.rmdir()
    elif running.config.exists():
        running.config.unlink()
    running.config.write_text(good)
    running.wait_event("config.loaded", loaded + 1)
    assert pids == running.pids()


def test_fragments_come_change_and_go_with_their_kernels(scene: Scene) -> None:
    fragments = scene.directory / "kernels.d"
    fragments.mkdir()
    head = 'include = ["kernels.d/*.toml"]'
    scene.write(scene.mini("main"), head=head)
    scene.start("main")
    main = scene.pids()["main"]

    (fragments / "one.toml").write_text(f"{scene.mini('one')}\n")
    scene.wait_running("one")
    (fragments / "two.toml").write_text(f"{scene.mini('two')}\n{scene.mini('three')}\n")
    scene.wait_running("two", "three")
    one = scene.pids()["one"]

    edited = scene.mini("two", env='{ A = "1" }')
    (fragments / "two.toml").write_text(f"{edited}\n{scene.mini('three')}\n")
    scene.wait_running("two", after=1)
    (fragments / "three.toml").write_text(f"{scene.mini('three')}\n")
    rejected = scene.wait_event("config.rejected")
    (line,) = rejected["mistakes"]
    assert "three.toml" in line
    assert "two.toml" in line

    (fragments / "three.toml").unlink()
    (fragments / "two.toml").unlink()
    scene.wait_event("kernel.removed", kernel="two")
    scene.wait_event("kernel.removed", kernel="three")
    assert {"main": main, "one": one} == scene.pids()
    wait_for(lambda: not scene.connection_file("two").exists(), "the connection file is gone")


def test_with_when_idle_an_edit_waits_until_nothing_is_executed(scene: Scene) -> None:
    when_idle = {"on_config_change": '"when-idle"', "cwd": f'"{scene.directory}"'}
    scene.write(scene.ipykernel("a", **when_idle))
    scene.start("a")
    pid = scene.pids()["a"]
    go_on = scene.directory / "go-on"
    until = f"while not os.path.exists({str(go_on)!r}): time.sleep(0.05)"
    wait = f"import os, time\nopen('busy', 'w').close()\n{until}"
    with scene.client("a") as client:
        send(client, wait)
        wait_for((scene.directory / "busy").exists, "it is busy")

        text = scene.config.read_text()
        scene.config.write_text(text.replace("env = {", 'env = { A = "1",'))
        wait_for(lambda: scene.kernel("a")["pending"] == ["env"], "the edit is pending")
        # Another edit is applied meanwhile, and this one still waits.
        scene.config.write_text(text.replace("env = {", 'max_restarts = 9\nenv = { A = "1",'))
        scene.wait_event("config.loaded", 3)
        assert (pid, ["env"]) == (scene.kernel("a")["pid"], scene.kernel("a")["pending"])

        go_on.touch()
        scene.wait_running("a", after=1)
    assert "1" == scene.run("a", "import os; print(os.environ['A'])")
    assert [] == scene.events("kernel.died", kernel="a")


def test_a_relative_working_directory_is_below_the_file_and_not_below_the_daemons(scene: Scene) -> None:
    (scene.directory / "conf/data").mkdir(parents=True)
    scene.config = scene.directory / "conf/kernels.toml"
    head = f'[supervisor]\nstate_dir = "{scene.state_dir}"\nruntime_dir = "{scene.runtime_dir}"\n'
    table = re.sub("cwd = .*", 'cwd = "data"', scene.mini("a"))
    scene.config.write_text(head + table)
    scene.start("a")

    assert scene.directory / "conf/data" == Path(f"/proc/{scene.pids()['a']}/cwd").readlink()
    assert f'cwd = "{scene.directory}/conf/data"' in scene.command("check", str(scene.config)).out
    assert "nothing would be done\n" == scene.command("plan", str(scene.config)).out


def test_a_live_key_is_in_force_at_once_for_the_run_that_there_is(running: Scene) -> None:
    running.write(running.mini("live", heartbeat='{ action = "off" }', probe='{ action = "off" }'))
    running.wait_running("live")
    pid = running.pids()["live"]
    os.kill(pid, signal.SIGSTOP)

    running.write(
        running.mini("live", heartbeat="{ interval = 0.1, misses = 2 }", probe='{ action = "off" }')
    )

    told = running.wait_event("kernel.unresponsive", kernel="live")
    assert (pid, 1) == (told["pid"], told["generation"])
    os.kill(pid, signal.SIGCONT)


def test_a_rename_is_a_stop_and_a_start_and_plan_says_so(running: Scene) -> None:
    running.write(running.mini("old"), running.mini("a"))
    running.wait_running("old", "a")
    pids = running.pids()
    other = running.directory / "renamed.toml"
    # The same table by another name, in a file of its own, so that nothing is loaded yet.
    other.write_text(running.config.read_text().replace("[kernels.old]", "[kernels.new]"))

    planned = running.command("plan", str(other), "--config", str(running.config))

    assert 0 == planned.code, planned.err
    lines = {line.split(":")[0]: line for line in planned.out.splitlines()}
    assert {"old", "new"} == lines.keys()
    assert "remove" in lines["old"]
    assert "start" in lines["new"]
    assert all("a new name is a new kernel" in line for line in lines.values())
    assert pids == running.pids()
    other.replace(running.config)
    running.wait_event("kernel.removed", kernel="old")
    running.wait_running("new")
    assert pids["a"] == running.pids()["a"]
    assert {"new", "a"} == running.pids().keys()


def test_a_disabled_kernel_stays_declared_and_does_not_run(running: Scene) -> None:
    running.write(running.mini("off"), running.mini("a"))
    running.wait_running("off", "a")
    pids = running.pids()

    running.write(running.mini("off", enabled="false"), running.mini("a"))
    running.wait_phase("off", "stopped")

    refused = running.order("start", "off")
    assert 409 == refused.status
    assert "enabled = true" in refused.body["error"]
    assert [] == running.leaders("off")
    assert [] == running.events("kernel.died", kernel="off")
    running.write(running.mini("off"), running.mini("a"))
    running.wait_running("off", after=1)
    assert pids["a"] == running.pids()["a"]


def test_with_manual_an_edit_is_pending_until_an_order(running: Scene) -> None:
    manual = {"on_config_change": '"manual"'}
    running.write(running.mini("by-hand", **manual))
    running.wait_running("by-hand")
    pid = running.pids()["by-hand"]

    running.write(running.mini("by-hand", env='{ A = "1" }', **manual))
    wait_for(lambda: running.kernel("by-hand")["pending"] == ["env"], "the edit is pending")

    assert pid == running.pids()["by-hand"]
    assert 200 == running.order("restart", "by-hand").status
    assert [] == running.kernel("by-hand")["pending"]
    assert "1" == running.run("by-hand", "import os; print(os.environ['A'])")
